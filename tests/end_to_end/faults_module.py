"""Workers for the fault tests: put beside workers.toml as a plain module named ``faulty``."""

import atexit
import os
import signal
import subprocess
import sys
import threading
import time

from bgworker import worker

# Left in the buffer and in the list on purpose: a worker that is a clone of the loader must do neither again (T18).
sys.stdout.write("said once at import\n")
atexit.register(lambda: os.write(2, b"atexit of the loader\n"))


def idle(_arg):
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass


def deaf(_arg):
    """Nothing is ever unblocked, and Python itself has no say: a wait in C that the signals do not end."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        time.sleep(3600)


def busy(_arg):
    while True:
        sum(range(10_000_000))


def ignores_term(_arg):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    worker.unblock_signals()
    while True:
        worker.wait_latch(timeout=60.0, events=worker.WL_LATCH_SET | worker.WL_TIMEOUT)
        worker.reset_latch()


def counts_wakes(_arg):
    """Say how often the latch was found set; a storm of signals is one wake or a few, never none."""
    worker.unblock_signals()
    for number, _ in enumerate(worker.latch_loop()):
        worker.report_activity("idle", f"woken {number}")


def ends(code):
    worker.unblock_signals()
    os._exit(code)


def fails(_arg):
    worker.unblock_signals()
    raise RuntimeError("as it should")


def waits_for_file(arg):
    """End with an exit code, together with everybody who waits for the same file."""
    worker.unblock_signals()
    while not os.path.exists(arg["file"]):
        worker.wait_latch(timeout=0.05)
    os._exit(arg["code"])


def bombs(arg):
    """A bounded fork bomb that ignores SIGTERM, and its parent's end."""
    worker.unblock_signals()
    for _ in range(arg["count"]):
        subprocess.Popen(
            [sys.executable, "-S", "-c", f"import signal,time\nsignal.signal(15, 1)\ntime.sleep(600)  # {arg['mark']}"]
        )
    for _ in worker.latch_loop():
        pass


def floods(arg):
    """Print so many megabytes, then say how many lines that was."""
    worker.unblock_signals()
    line = "x" * 1023 + "\n"
    for _ in range(arg):
        sys.stdout.write(line * 1024)
    sys.stdout.flush()
    worker.report_activity("idle", "flood is over")
    for _ in worker.latch_loop():
        pass


def starts_thread(_arg):
    worker.unblock_signals()
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    for _ in worker.latch_loop():
        pass
