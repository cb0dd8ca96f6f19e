"""Workers' functions of these tests; imported by worker processes through their python_path."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

from bgworker import spi, worker
from bgworker._spec import BackgroundWorker
from bgworker._worker.runtime import current

NOT_A_FUNCTION = 5
#: What must live as long as its process.
kept: dict[str, Any] = {}


def inheritable_fds() -> set[str]:
    """Return the descriptors that a program started here would have, the standard streams left out."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            if int(fd) > 2 and os.get_inheritable(int(fd)):
                found.add(fd)
        except OSError:
            pass  # the one that listed the directory
    return found


def say(text: object) -> None:
    sys.stdout.write(f"{text}\n")  # line-buffered by the runtime


def write_argument(arg: Any) -> None:
    say(f"{type(arg).__name__} {arg}")


def leave(how: Any) -> Any:
    """End in the way that is asked for."""
    match how:
        case ["exit", *code]:
            sys.exit(*code)
        case "return":
            return "something"
        case "raise":
            raise ValueError("no such order")
        case "interrupt":
            raise KeyboardInterrupt
        case "terminated":
            raise worker.Terminated
        case "abort":
            os.abort()
        case "quit":
            os.kill(os.getpid(), signal.SIGQUIT)
        case "segfault":
            import ctypes

            ctypes.string_at(0)
    return None


def close_stdout(_arg: Any) -> None:
    say("first")
    os.close(1)
    sys.stdout.write("lost, and without a newline not missed before the end")


def close_streams(_arg: Any) -> None:
    sys.stdout.close()
    sys.stderr.close()


def no_streams(_arg: Any) -> None:
    sys.stdout = sys.stderr = None
    raise ValueError("without streams")


def fill_stdout(_arg: Any) -> None:
    """Fill the pipe, then buffer a last word that nobody will take."""
    os.set_blocking(1, False)
    try:
        while True:
            os.write(1, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(1, True)
    sys.stdout.write("y")
    sys.stderr.write("stderr still works")


def last_words(_arg: Any) -> None:
    sys.stdout.write("no newline on stdout")
    sys.stderr.write("no newline on stderr")


def write_to_nobody(_arg: Any) -> None:
    sys.stdout.write("buffered to the end")


def look_at_process(_arg: Any) -> None:
    """Print what the worker started with."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    say("blocked " + " ".join(sorted(s.name for s in signal.Signals if s in blocked)))
    say(f"argv {sys.argv}")
    say("inheritable " + " ".join(sorted(inheritable_fds())))
    with open("/proc/self/cmdline") as cmdline:
        say(f"title {cmdline.read()[:30]}".replace("\0", ""))


def own_handler(_arg: Any) -> None:
    """Install a handler before unblocking."""
    seen: list[int] = []

    def handler(signum: int, _frame: Any) -> None:
        seen.append(signum)
        worker.set_latch()

    signal.signal(signal.SIGTERM, handler)
    say("ready")
    worker.unblock_signals()
    while not seen:
        worker.wait_latch()
        worker.reset_latch()
    say(f"handled {seen}")


def never_unblock(_arg: Any) -> None:
    say("ready")
    while True:
        time.sleep(60)


def spin(_arg: Any) -> None:
    """Plain code: no call of any face."""
    worker.unblock_signals()
    say("ready")
    n = 0
    while True:
        n += 1


def sleep_plainly(_arg: Any) -> None:
    worker.unblock_signals()
    say("ready")
    time.sleep(600)


def wait_for_ever(_arg: Any) -> None:
    worker.unblock_signals()
    say("ready")
    while True:
        worker.wait_latch(wait_event="Testing")
        worker.reset_latch()


def swallow(_arg: Any) -> int:
    """Swallow Terminated twice and return: the exit code must be 1 all the same."""
    worker.unblock_signals()
    say("ready")
    for _ in range(2):
        try:
            worker.wait_latch()
        except worker.Terminated:
            say("swallowed")
    return 0


def hold(_arg: Any) -> None:
    worker.unblock_signals()
    try:
        with worker.hold_interrupts():
            say("ready")
            bits = worker.wait_latch()
            worker.check_for_interrupts()
            say(f"held through, bits {bits}")
        say("not reached")
    except worker.Terminated:
        say("raised at the end")
        raise


def hold_and_fail(_arg: Any) -> None:
    worker.unblock_signals()
    with worker.hold_interrupts():
        say("ready")
        worker.wait_latch()
        raise ValueError("inside the block")


def rally(rounds: int) -> None:
    """Answer each SIGUSR1 with one byte; the other side sends the next only after that, so one lost wake-up stops the game."""
    worker.unblock_signals()
    say("ready")
    for _ in range(rounds):
        assert worker.wait_latch(timeout=20) == worker.WL_LATCH_SET, "a wake-up was lost"
        worker.reset_latch()
        os.write(1, b".")
    say("over")


def thread_rally(rounds: int) -> None:
    """The same between two threads."""
    turn = threading.Semaphore(0)

    def set_it() -> None:
        for _ in range(rounds):
            turn.acquire()
            worker.set_latch()

    thread = threading.Thread(target=set_it)
    thread.start()
    for _ in range(rounds):
        turn.release()
        assert worker.wait_latch(timeout=20) == worker.WL_LATCH_SET, "a wake-up was lost"
        worker.reset_latch()
    thread.join()
    say("over")


def signal_to_a_thread(_arg: Any) -> None:
    """The kernel may give a signal to any thread; then nothing interrupts the main thread's poll() but the wakeup descriptor."""
    worker.unblock_signals()
    ready = threading.Event()
    idle = threading.Event()

    def work() -> None:
        ready.set()
        idle.wait()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    ready.wait()

    def send() -> None:
        time.sleep(0.2)
        assert thread.ident is not None
        signal.pthread_kill(thread.ident, signal.SIGUSR1)

    threading.Thread(target=send, daemon=True).start()
    began = time.monotonic()
    say(f"{worker.wait_latch(timeout=10)} at once {time.monotonic() - began < 5}")
    idle.set()


def wait_with(arg: dict[str, Any]) -> None:
    """Wait once with these arguments, print bits and time."""
    worker.unblock_signals()
    say("ready")
    began = time.monotonic()
    bits = worker.wait_latch(**arg)
    say(f"bits {bits} after {time.monotonic() - began:.3f}")


def wait_on_socket(_arg: Any) -> None:
    ours, theirs = socket.socketpair()
    say(worker.wait_latch(timeout=0, socket=ours))
    say(worker.wait_latch(events=worker.WL_SOCKET_READABLE | worker.WL_SOCKET_WRITEABLE, socket=ours))
    theirs.send(b"x")
    say(worker.wait_latch(socket=ours))
    worker.set_latch()
    say(worker.wait_latch(socket=ours))
    theirs.close()
    ours.recv(1)
    worker.reset_latch()
    say(worker.wait_latch(socket=ours.fileno()))


def watch_host(exits: bool) -> None:
    say("ready")
    bits = worker.wait_latch(events=worker.WL_LATCH_SET | (worker.WL_EXIT_ON_PM_DEATH if exits else worker.WL_POSTMASTER_DEATH))
    say(f"bits {bits}")
    try:
        worker.process_config_file()
    except Exception as error:
        say(f"{type(error).__name__}")


def reload_loop(_arg: Any) -> None:
    """Follow reloads; the naptime is asked for before each wait."""
    worker.unblock_signals()
    for _ in worker.latch_loop(timeout=lambda: worker.settings()["naptime"], wait_event="Nap"):
        if worker.config_reload_pending():
            worker.process_config_file()
        say(f"pass {worker.settings()} {worker.config_reload_pending()}")
        if worker.settings().get("stop"):
            break


def print_notifications(count: int) -> None:
    worker.unblock_signals()
    say("ready")
    seen = 0
    for _ in worker.latch_loop():
        for notification in worker.notifications():
            say(tuple(notification))
            seen += 1
        if seen >= count:
            break


def loop_blocked(_arg: Any) -> None:
    for _ in worker.latch_loop(timeout=0):
        break


def report(_arg: Any) -> None:
    worker.report_activity("running", "order 42 ä" + "x" * 1000)
    say("reported")
    worker.unblock_signals()
    for _ in worker.latch_loop(wait_event="ReportMain"):
        pass


def entry(_arg: Any) -> None:
    mine = worker.my_bgworker_entry()
    mine.bgw_main_arg["list"].append("mine")
    _arg["list"].append("argument's")
    again = worker.my_bgworker_entry()
    say(f"{again.bgw_name} {again.bgw_extra} {again.bgw_main_arg}")


def use_threads(_arg: Any) -> None:
    """What threads may and may not do."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor() as pool:
        for face in (worker.wait_latch, worker.unblock_signals, worker.connect, spi.transaction):
            say(type(pool.submit(face).exception()).__name__)
        pool.submit(worker.report_activity, "running", "in a thread").result()
        pool.submit(worker.set_latch).result()
        say(pool.submit(worker.register_dynamic_background_worker, a_worker()).result())
    say(worker.wait_latch())


def leave_threads(_arg: Any) -> None:
    """Return while an executor still works: its work must not be lost."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor()

    def work() -> None:
        time.sleep(0.2)
        say("work done")

    pool.submit(work)


def fail_with_threads(_arg: Any) -> None:
    threading.Thread(target=lambda: time.sleep(600)).start()
    raise ValueError("with a thread left")


def a_worker() -> BackgroundWorker:
    return BackgroundWorker(bgw_name="child", bgw_library_name="functions", bgw_function_name="say")


def register(_arg: Any) -> None:
    worker.unblock_signals()
    handle = worker.register_dynamic_background_worker(a_worker())
    say(handle)
    say(handle.get_pid())
    say(handle.wait_for_startup())
    try:
        worker.register_dynamic_background_worker(a_worker())
    except Exception as error:
        say(f"{type(error).__name__}: {error}")
    say(worker.notifications())
    say(handle.wait_for_shutdown())


def register_badly(_arg: Any) -> None:
    try:
        worker.register_dynamic_background_worker(
            BackgroundWorker(bgw_name="child", bgw_library_name="x", bgw_function_name="y", bgw_main_arg=object())
        )
    except Exception as error:
        say(f"{type(error).__name__} {error}")


def raise_in_request(_arg: Any) -> None:
    """A handler of the worker's own raises in the middle of a request."""

    def handler(_signum: int, _frame: Any) -> None:
        raise InterruptedError("own handler")

    signal.signal(signal.SIGUSR2, handler)
    worker.unblock_signals()
    say("ready")
    try:
        worker.process_config_file()
    except InterruptedError as error:
        say(error)
    worker.process_config_file()
    say(worker.settings())


def atexit_and_logging(_arg: Any) -> None:
    import atexit
    import logging
    import logging.handlers
    import tempfile
    import warnings

    warnings.simplefilter("ignore")  # one of them speaks of directories that are removed at exit
    sys.unraisablehook = sys.__unraisablehook__  # the test's process, which this one is a clone of, has its own

    def fail() -> None:
        raise ValueError("in an exit callback")

    handler = logging.handlers.MemoryHandler(100, target=logging.StreamHandler())
    logging.getLogger().addHandler(handler)
    logging.getLogger().warning("buffered log line")
    atexit.register(say, "exit callback")
    atexit.register(fail)
    directory = kept["directory"] = tempfile.TemporaryDirectory()
    say(directory.name)


def start_program(_arg: Any) -> None:
    """A program that the worker starts must not hold our descriptors, nor change the worker when it is signalled."""
    listing = subprocess.run(["ls", "/proc/self/fd"], capture_output=True, text=True, check=True).stdout.split()
    say("fds " + " ".join(listing))


def fork_child(_arg: Any) -> None:
    """A child that the worker forks is no worker, and its signals are not ours."""
    worker.unblock_signals()
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            worker.set_latch()
        except worker.UsageError as error:
            os.write(write_fd, f"{error}, wakeup fd {signal.set_wakeup_fd(-1)}".encode())
        time.sleep(600)
    say(os.read(read_fd, 1000).decode())
    os.kill(pid, signal.SIGTERM)
    say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    say(worker.wait_latch(timeout=0))


def burst(count: int) -> None:
    """Send ourselves every signal the latch knows, many times, while waiting."""
    worker.unblock_signals()
    for number in range(count):
        os.kill(os.getpid(), (signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)[number % 3])
    say(worker.wait_latch(timeout=20))
    say(worker.config_reload_pending())


def run_asyncio(_arg: Any) -> None:
    """Blocking faces inside a loop that the worker runs itself name their twins; afterwards the latch still works."""
    import asyncio
    import contextlib

    async def main() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, lambda: None)
        for face in (worker.wait_latch, worker.latch_loop, worker.process_config_file, worker.connect, spi.transaction):
            with contextlib.suppress(worker.UsageError):
                face()
                continue
            try:
                face()
            except worker.UsageError as error:
                say(error.message_hint)

    asyncio.run(main())
    worker.unblock_signals()
    say("ready")
    say(worker.wait_latch(timeout=20))


def everything_at_once(_arg: Any) -> None:
    """A bit of every face, over and over, so that a signal may come anywhere."""
    worker.unblock_signals()
    say("ready")
    for n, _ in enumerate(worker.latch_loop(timeout=0, wait_event="Stress")):
        worker.report_activity("running", f"pass {n} " + "x" * (n % 300))
        with worker.hold_interrupts():
            worker.set_latch()
            worker.wait_latch(timeout=0)
        worker.process_config_file()
        worker.settings()
        worker.notifications()
        sum(range(200))


class Slow:
    """Its destructor takes long enough to be hit."""

    def __del__(self) -> None:
        say("in the destructor")
        # Shorter than a test waits: a signal in the last moment before the system call does not end it.
        time.sleep(5)


def spin_after_destructor(_arg: Any) -> None:
    """A destructor that is hit, then plain code that calls no face."""
    sys.unraisablehook = sys.__unraisablehook__  # the test's process, which this one is a clone of, has its own
    current().interrupts._unraisable_before = None
    current().interrupts.install()
    worker.unblock_signals()
    Slow()
    say("out of the destructor")
    while True:
        pass


def in_terminal(_arg: Any) -> None:
    worker.unblock_signals()
    worker.report_activity("running", "nobody sees it")
    say(worker.settings())
    say(worker.notifications())
    for call in (worker.process_config_file, lambda: worker.register_dynamic_background_worker(a_worker())):
        try:
            call()
        except Exception as error:
            say(f"{type(error).__name__}: {error}")
    say(worker.wait_latch(timeout=0))


def break_here(_arg: Any) -> None:
    secret = 42
    breakpoint()
    say(f"went on {secret}")
