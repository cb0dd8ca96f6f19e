"""Workers that share memory under a real host: who has it, what a crash does to them, and what it does not (C31)."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bgworker import BackgroundWorker, Client
from bgworker.testing import RunningHost

MakeHost = Callable[..., RunningHost]

EXECUTED = "[host]\nmax_worker_processes = 16\nshutdown_timeout = 2.0\n"
#: Workers are clones of the loader; with EXECUTED alone each is an interpreter of its own.
HEAD = EXECUTED + 'shared_preload_libraries = ["tasks"]\n'

TASKS = '''
"""Workers that share memory."""
import os, sys, time
from bgworker import aio, worker

def show(segment):
    worker.report_activity("idle", f"{segment.generation} {bytes(segment.buffer[:8]).hex()}")

def begin(segment):
    segment.buffer[0] = 7

def share(arg):
    worker.unblock_signals()
    segment = worker.shared_memory(arg or "counters", 64, begin)
    show(segment)
    for _ in worker.latch_loop():
        show(segment)

def hold(arg):
    worker.unblock_signals()
    segment = worker.shared_memory("counters", 64, begin)
    with segment.lock("a"):
        segment.buffer[1] = 99
        show(segment)
        time.sleep(3600)

def immune(arg):
    import signal
    worker.unblock_signals()
    segment = worker.shared_memory("counters", 64, begin)
    signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    show(segment)
    for _ in worker.latch_loop():
        pass

def crash(arg):
    segment = worker.shared_memory("counters", 64, begin)
    os.kill(os.getpid(), 9)

def idle(arg):
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass

def end(arg):
    """Attach, wait until somebody else has, too, and end as told."""
    worker.unblock_signals()
    segment = worker.shared_memory("counters", 64, begin) if arg["attached"] else None
    worker.report_activity("idle", "ready")
    worker.wait_latch()
    if "signal" in arg:
        os.kill(os.getpid(), arg["signal"])
    os._exit(arg["code"])
'''


def worker(name: str, function: str, arg: str = '""', restart: str = "3600") -> str:
    """Return a [[worker]] table; a long restart time shows that a restart was not its doing."""
    return (
        f'[[worker]]\nbgw_name = "{name}"\nbgw_library_name = "tasks"\nbgw_function_name = "{function}"\n'
        f"bgw_restart_time = {restart}\nbgw_main_arg = {arg}\n"
    )


def shown(host: RunningHost, name: str) -> dict[str, Any] | None:
    """Return a worker that runs and has shown its segment."""
    slot = host.slot(name)
    return slot if slot is not None and slot["state"] == "started" and slot["activity"]["text"] else None


def woken(host: RunningHost, client: Client, lives: int) -> bool:
    """Bring the watcher's restart forward; return whether it has come."""
    client.start("watcher")
    slot = host.slot("watcher")
    return slot is not None and slot["restarts"] == lives


def all_shown(host: RunningHost, names: list[str], restarts: int) -> dict[str, dict[str, Any]]:
    """Wait until each worker is in this life and shows its segment; return their slots."""

    def found() -> dict[str, dict[str, Any]] | None:
        slots = {name: shown(host, name) for name in names}
        return {n: s for n, s in slots.items() if s} if all(s and s["restarts"] == restarts for s in slots.values()) else None

    slots = host.wait_until(found, f"{names} are in life {restarts + 1} and show their segment")
    assert slots is not None
    return slots


def test_crash_of_one_who_holds_a_lock(make_host: MakeHost) -> None:
    """C31: T03: eight share memory, one is killed inside of a lock: all eight start again at once with new memory, others go on."""
    sharing = [f"sharer {n}" for n in range(7)]
    tables = [worker(name, "share") for name in sharing] + [worker("holder", "hold"), worker("a", "idle"), worker("b", "idle")]
    host = make_host(HEAD + "".join(tables) + worker("other memory", "share", '"elsewhere"'), tasks=TASKS)
    host.start_and_wait()
    before = all_shown(host, [*sharing, "holder"], 0)
    assert before["holder"]["activity"]["text"].startswith("1 0763")
    assert before["holder"]["config"]["segments"] == ["counters"]
    outside = {name: host.wait_for_worker(name)["pid"] for name in ("a", "b", "other memory")}
    os.kill(before["holder"]["pid"], signal.SIGKILL)
    after = all_shown(host, [*sharing, "holder"], 1)
    for slot in after.values():
        assert slot["activity"]["text"].startswith("2 07")
        assert slot["generation"] == before[slot["bgw_name"]]["generation"]
    assert not {slot["pid"] for slot in after.values()} & {slot["pid"] for slot in before.values()}
    assert {name: host.wait_for_worker(name)["pid"] for name in outside} == outside
    assert after["sharer 0"]["last_exit"]["signal"] == signal.SIGQUIT
    assert host.status()["host"]["crash_count"] == 1
    assert host.log().count("terminating 7 other background workers because of the crash") == 1
    assert shown(host, "other memory")["activity"]["text"].startswith("1 07")  # type: ignore[index]


#: Without the signals that a worker has a handler for, or that every Python program ignores.
ENDS = [
    *({"code": code, "attached": True} for code in (0, 1, 2, 3, 120, 127, 128, 255)),
    *({"signal": int(s), "attached": True} for s in (2, 3, 4, 6, 9, 11, 15, 64)),
    *({"code": code, "attached": False} for code in (1, 2, 255)),
    *({"signal": int(s), "attached": False} for s in (9, 11)),
]


def test_which_ends_are_crashes(make_host: MakeHost) -> None:
    """C29, C30, C31: T04: 0 unregisters, 1 restarts, the rest takes down those who share memory with it, and nobody else."""
    host = make_host(HEAD + worker("watcher", "share") + worker("outsider", "idle"), tasks=TASKS)
    host.start_and_wait()
    outsider = host.wait_for_worker("outsider")["pid"]
    crashes = lives = 0
    with host.client() as client:
        for number, end in enumerate(ENDS):
            name = f"end {number}"
            before = all_shown(host, ["watcher"], lives)["watcher"]
            handle = client.register_dynamic_background_worker(
                BackgroundWorker(bgw_name=name, bgw_library_name="tasks", bgw_function_name="end", bgw_main_arg=end)
            )
            host.wait_until(partial(shown, host, name), "it is ready")
            client.signal(name, "USR1")
            handle.wait_for_shutdown(30)
            is_crash = end.get("code") not in (0, 1) and end.get("signal") not in (2, 15)
            crashes += is_crash
            if is_crash and end["attached"]:
                lives += 1
                # The guard against crash loops would have the last of these wait for a second each.
                host.wait_until(partial(woken, host, client, lives), "the watcher is in its next life")
            after = all_shown(host, ["watcher"], lives)["watcher"]
            assert (after["pid"] == before["pid"]) is not (is_crash and end["attached"]), end
            assert host.status()["host"]["crash_count"] == crashes, end
    assert host.wait_for_worker("outsider")["pid"] == outsider


def test_one_reinitialisation_with_a_worker_that_ignores_it(make_host: MakeHost) -> None:
    """C31: T39: a second crash changes nothing; who ignores SIGQUIT is killed after 5 s, and only then they start again."""
    host = make_host(HEAD + worker("a", "share") + worker("b", "share") + worker("immune", "immune"), tasks=TASKS)
    host.start_and_wait()
    before = all_shown(host, ["a", "b", "immune"], 0)
    os.kill(before["b"]["pid"], signal.SIGSTOP)  # it gets no further than the second crash
    os.kill(before["a"]["pid"], signal.SIGKILL)
    host.wait_for_worker("a", "waiting_restart")
    os.kill(before["b"]["pid"], signal.SIGKILL)
    slot = host.wait_for_worker("b", "waiting_restart")
    assert slot["reason"] == (
        'reinitialised: "a" crashed (signal 9 (Killed)); restarts at once, when all that the crash ends are gone, try 2'
    )
    assert host.wait_for_worker("immune", "terminating")["pid"] == before["immune"]["pid"]
    after = all_shown(host, ["a", "b", "immune"], 1)
    assert after["immune"]["last_exit"]["signal"] == signal.SIGKILL
    assert {slot["activity"]["text"][:1] for slot in after.values()} == {"2"}
    assert host.status()["host"]["crash_count"] == 1
    assert host.log().count("because of the crash") == 1


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGQUIT])
def test_shutdown_during_reinitialisation(make_host: MakeHost, signum: signal.Signals) -> None:
    """C31, C39: a shutdown while a crash is being seen to: nobody starts again, who ignores everything is killed, exit code 0."""
    host = make_host(HEAD + worker("a", "share") + worker("b", "share") + worker("immune", "immune"), tasks=TASKS)
    host.start_and_wait()
    before = all_shown(host, ["a", "b", "immune"], 0)
    os.kill(before["a"]["pid"], signal.SIGKILL)
    host.wait_for_worker("a", "waiting_restart")
    host.wait_for_worker("b", "waiting_restart")
    assert host.wait_for_worker("immune", "terminating")["pid"] == before["immune"]["pid"]
    assert host.stop(signum) == 0
    assert not Path(f"/proc/{before['immune']['pid']}").exists()
    started = [line for line in host.log().splitlines() if line.endswith("started")]
    assert len(started) == 3, "each has had one life"


def test_host_that_does_not_restart_after_a_crash(make_host: MakeHost) -> None:
    """C31: restart_after_crash = false: a crash that concerns others ends the host with exit code 1; a lone one does not."""
    tables = worker("a", "share") + worker("b", "share") + worker("alone", "share", '"alone"')
    host = make_host(HEAD + "restart_after_crash = false\n" + tables, tasks=TASKS)
    host.start_and_wait()
    before = all_shown(host, ["a", "b", "alone"], 0)
    os.kill(before["alone"]["pid"], signal.SIGKILL)
    assert all_shown(host, ["alone"], 1)["alone"]["activity"]["text"].startswith("2 07")
    os.kill(before["a"]["pid"], signal.SIGKILL)
    assert host.process is not None
    assert host.process.wait(timeout=60) == 1
    assert "shutting down because restart_after_crash is off" in host.log()


def test_cluster_scope(make_host: MakeHost) -> None:
    """C31: crash_scope = "cluster": a crash restarts every worker, attached or not."""
    host = make_host(EXECUTED + 'crash_scope = "cluster"\n' + worker("a", "idle") + worker("b", "share"), tasks=TASKS)
    host.start_and_wait()
    first = host.wait_for_worker("a")
    before = all_shown(host, ["b"], 0)["b"]
    os.kill(first["pid"], signal.SIGKILL)
    after = all_shown(host, ["b"], 1)["b"]
    assert after["pid"] != before["pid"]
    assert after["activity"]["text"].startswith("2 07")
    assert "has no effect" not in host.log()


def test_host_death_takes_the_memory_along(make_host: MakeHost) -> None:
    """C24: T07: workers that share memory, one of them inside of a lock, are gone when the host was killed."""
    host = make_host(HEAD + worker("a", "share") + worker("holder", "hold"), tasks=TASKS)
    host.start_and_wait()
    before = all_shown(host, ["a", "holder"], 0)
    assert host.process is not None
    fds = [os.pidfd_open(slot["pid"]) for slot in before.values()]
    host.process.kill()
    try:
        for fd in fds:
            assert select.select([fd], [], [], 60)[0], "a worker outlives its host"
    finally:
        for fd in fds:
            os.close(fd)


@pytest.mark.parametrize("rounds", [30, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_rounds_of_crashes_leave_no_descriptor(make_host: MakeHost, rounds: int) -> None:
    """C31: segments that are made and lost again cost the host nothing that stays."""
    # A spare has descriptors of the host's, too, and one more of them at the end would not be a leak.
    host = make_host(HEAD + "spare_workers = 0\n", tasks=TASKS)
    host.start_and_wait()
    assert host.process is not None
    folder = Path(f"/proc/{host.process.pid}/fd")
    with host.client() as client:
        open_before = len(list(folder.iterdir()))
        for number in range(1, rounds + 1):
            # Another worker each time, so that no guard against crash loops makes it wait.
            client.register_dynamic_background_worker(
                BackgroundWorker(bgw_name="one", bgw_library_name="tasks", bgw_function_name="crash")
            ).wait_for_shutdown(60)
            assert client.host().crash_count == number
        host.wait_until(lambda: len(list(folder.iterdir())) <= open_before, "the host has no more descriptors open than before")
