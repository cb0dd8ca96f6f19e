"""watchdog, max_age and max_memory under a real host: what hangs is found, what waits or moves is left alone."""

from __future__ import annotations

from collections.abc import Callable

from bgworker.testing import RunningHost

MakeHost = Callable[..., RunningHost]

HANGS = '''
"""Workers that hang, each in its own way, and workers that only look like it."""
import asyncio, os, signal, threading, time
from bgworker import aio, worker

def in_c(arg):
    worker.unblock_signals()
    sum(range(10**12))                     # holds the GIL and never looks at signals

def in_python(arg):
    worker.unblock_signals()
    try:
        while True:
            pass
    finally:
        print("cleaned up")

def in_sleep(arg):
    worker.unblock_signals()
    time.sleep(3600)

def stopped(arg):
    os.kill(os.getpid(), signal.SIGSTOP)

async def in_async(arg):
    await asyncio.sleep(0.1)
    sum(range(10**12))

def waits(arg):
    worker.unblock_signals()
    threading.Thread(target=chatter, daemon=True).start()
    worker.wait_latch()

def chatter():
    time.sleep(0.6)                        # the wait is known as one by then
    worker.progress()

def naps(arg):
    worker.unblock_signals()
    for _ in worker.latch_loop(timeout=0.02):
        pass

def moves(arg):
    worker.unblock_signals()
    while True:
        time.sleep(0.1)
        worker.progress()

def reports(arg):
    worker.unblock_signals()
    while True:
        time.sleep(0.1)
        worker.report_activity("busy", str(time.monotonic()))

async def async_waits(arg):
    await asyncio.sleep(3600)

def grows(arg):
    worker.unblock_signals()
    kept = b"x" * (64 << 20)
    for _ in worker.latch_loop():
        pass
'''
STUCK = ("in_c", "in_python", "in_sleep", "stopped", "in_async")
FINE = ("waits", "naps", "moves", "reports", "async_waits")


def worker(name: str, function: str, keys: str) -> str:
    """Return a [[worker]] table that comes back after an hour if it fails."""
    names = f'bgw_name = "{name}"\nbgw_library_name = "hangs"\nbgw_function_name = "{function}"\n'
    return f"[[worker]]\n{names}bgw_restart_time = 3600\n{keys}\n"


def test_what_hangs_is_found_and_what_waits_is_left_alone(make_host: MakeHost) -> None:
    """A worker that makes no progress is dumped, stopped and restarted by its rules, a C loop and a stopped process included."""
    tables = [worker(name, name, "watchdog = 1\nstop_timeout = 0.5") for name in (*STUCK, *FINE)]
    host = make_host("[host]\nmax_worker_processes = 16\n" + "".join(tables), hangs=HANGS)
    host.start_and_wait()
    pids = {name: host.wait_for_worker(name)["pid"] for name in FINE}
    for name in STUCK:
        slot = host.wait_for_worker(name, "waiting_restart")
        assert slot["reason"] == "stuck: no progress for 1 s; restarts after 3600 s, try 2"
        assert slot["last_exit"]["reason"] == "stuck: no progress for 1 s"
        assert f'background worker "{name}" (PID ' in host.log()
    # A process that is stopped writes nothing; the others say where in Python they were, also while C code ran.
    for name in set(STUCK) - {"stopped"}:
        host.wait_until(lambda n=name: f"in {n}" in host.log(n), f"the stack of {name} is in its log")  # type: ignore[misc]
    host.wait_until(lambda: "cleaned up" in host.log("in_python"), "SIGTERM came after the stack")
    assert host.status()["host"]["crash_count"] == 0
    assert "in_c" in host.run_cli("status", "--failed").stdout
    assert {name: host.slot(name)["pid"] for name in FINE} == pids  # type: ignore[index]
    assert not [name for name in FINE if "stuck" in host.log(name)]


def test_old_and_big_workers_get_a_new_process(make_host: MakeHost) -> None:
    """max_age and max_memory are restarts that the host asks for: at once, and no failure, whatever bgw_restart_time says."""
    tables = worker("old", "naps", "max_age = 1") + worker("big", "grows", 'max_memory = "50M"')
    host = make_host("[host]\nmax_worker_processes = 4\n" + tables, hangs=HANGS)
    host.start_and_wait()
    for name in ("old", "big"):
        host.wait_until(lambda n=name: (host.slot(n) or {})["restarts"] > 0, f"{name} is recycled")  # type: ignore[misc]
    assert "is recycled: it has run for its max_age, 1 s" in host.log()
    assert "s after its start, and its max_memory is 50M" in host.log()
    assert host.slot("big")["config"]["max_memory"] == 50 << 20  # type: ignore[index]
    # It was too big as soon as it had begun, and will be again: that is for a human.
    assert 'WARNING:  background worker "big"' in host.log()
    assert "HINT:  Raise max_memory" in host.log()
    assert "Raise its max_memory" in host.run_cli("why", "big").stdout
    assert "has run for its max_age" not in host.run_cli("status", "--failed").stdout
