"""Spare workers under a real host: taken, made anew, killed, outdated, gone with the host."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bgworker import BackgroundWorker, BgwHandleStatus
from bgworker.testing import RunningHost
from tests.end_to_end.points import Points

MakeHost = Callable[..., RunningHost]

TASKS = '''
"""Workers for the tests."""
import os
from bgworker import worker

def idle(path):
    if path:
        with open(path, "a") as file:
            file.write(f"first {os.getpid()}\\n")
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass
'''

THREADS = '''
"""A worker that leaves threads behind for the end of its process."""
import concurrent.futures, signal, sys, threading

def threads(path):
    assert threading.main_thread().is_alive()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        found = pool.submit(lambda: "pool").result()
    handlers = [signal.getsignal(signum) for signum in (signal.SIGUSR2, signal.SIGALRM, signal.SIGCHLD)]
    assert handlers == [signal.SIG_DFL] * 3

    def last():
        threading.Event().wait(0.2)
        with open(path, "w") as file:
            file.write(found)

    threading.Thread(target=last).start()
'''
#: Restart times of 0 put nothing between the exit of a worker and its next life.
WORKER = '[[worker]]\nbgw_name = "fixed"\nbgw_library_name = "tasks"\nbgw_function_name = "idle"\nbgw_restart_time = 0\n'


@pytest.fixture
def points() -> Iterator[Points]:
    """The injection points of the host under test."""
    points = Points()
    yield points
    points.close()


def configuration(spares: int | None, workers: str = "") -> str:
    """Return a workers.toml that preloads the tests' module."""
    line = "" if spares is None else f"spare_workers = {spares}\n"
    return f'[host]\nmax_worker_processes = 8\nshared_preload_libraries = ["tasks"]\n{line}{workers}'


def spares_of(host: RunningHost) -> set[int]:
    """Return the pids of the host's spares."""
    assert host.process is not None
    try:
        children = Path(f"/proc/{host.process.pid}/task/{host.process.pid}/children").read_text().split()
    except OSError:
        return set()
    return {int(pid) for pid in children if title_of(pid) == b"bgworker: spare"}


def title_of(pid: int | str) -> bytes:
    """Return what ps shows of a process, nothing once it is dead."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0")
    except OSError:
        return b""


def wait_for_spares(host: RunningHost, count: int, *, other_than: set[int] = frozenset()) -> set[int]:  # type: ignore[assignment]
    """Wait until the host has so many spares, none of them one of these."""

    def found() -> set[int] | None:
        spares = spares_of(host)
        return spares if len(spares) == count and not spares & other_than else None

    spares = host.wait_until(found, f"there are {count} spares, other than {set(other_than)}")
    assert spares is not None
    return spares


def registration(argument: str = "", **keys: object) -> BackgroundWorker:
    """Return a dynamic worker."""
    return BackgroundWorker(
        bgw_name="dynamic",
        bgw_library_name="tasks",
        bgw_function_name="idle",
        bgw_main_arg=argument,
        **keys,  # type: ignore[arg-type]
    )


def test_spare_becomes_the_next_worker(bgworker_host: MakeHost) -> None:
    """A worker of a preloaded library is a process that was there before it was asked for; another takes its place."""
    host = bgworker_host(configuration(2), tasks=TASKS)
    spares = wait_for_spares(host, 2)
    assert host.status()["slots"] == []
    with host.client() as client:
        status, pid = client.register_dynamic_background_worker(registration()).wait_for_startup(10)
    assert status is BgwHandleStatus.STARTED
    assert pid in spares
    assert title_of(pid) == b"bgworker: dynamic"
    wait_for_spares(host, 2, other_than={pid})
    assert [(slot["pid"], slot["restarts"]) for slot in host.status()["slots"]] == [(pid, 0)]


def test_rehearsal_leaves_no_trace(bgworker_host: MakeHost, tmp_path: Path) -> None:
    """C29: what a spare has done before its assignment does not show: threads start, are waited for, and signals are as new."""
    host = bgworker_host(configuration(1).replace('["tasks"]', '["threaded"]'), threaded=THREADS)
    spares = wait_for_spares(host, 1)
    path = tmp_path / "written"
    worker = BackgroundWorker(bgw_name="dynamic", bgw_library_name="threaded", bgw_function_name="threads", bgw_main_arg=str(path))
    with host.client() as client:
        handle = client.register_dynamic_background_worker(worker)
        assert handle.wait_for_startup(10).pid in spares
        handle.wait_for_shutdown(10)
    assert path.read_text() == "pool"
    assert (host.finished("dynamic") or {})["last_exit"]["code"] == 0


def test_restart_takes_a_spare(bgworker_host: MakeHost) -> None:
    """C30: the next life of a worker that was killed is a spare's."""
    host = bgworker_host(configuration(1, WORKER), tasks=TASKS)
    pid = host.wait_for_worker("fixed")["pid"]
    spares = wait_for_spares(host, 1)
    os.kill(pid, signal.SIGKILL)
    host.wait_until(lambda: host.wait_for_worker("fixed")["pid"] in spares, "the spare is the worker")


def test_killed_spare_is_replaced_without_a_word(bgworker_host: MakeHost) -> None:
    """Whatever ends a spare, another follows; workers, status and crash count know nothing of it."""
    host = bgworker_host(configuration(2, WORKER), tasks=TASKS)
    before = host.wait_for_worker("fixed")
    first, second = wait_for_spares(host, 2)
    log = host.log()
    os.kill(first, signal.SIGKILL)
    os.kill(second, signal.SIGTERM)
    wait_for_spares(host, 2, other_than={first, second})
    assert host.wait_for_worker("fixed") == before
    status = host.status()
    assert (status["host"]["crash_count"], status["finished"]) == (0, [])
    assert host.log() == log


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_spare_that_ends_at_its_assignment_costs_nothing(
    bgworker_host: MakeHost, points: Points, tmp_path: Path, signum: int
) -> None:
    """C33: a registration whose spare is killed before it knows of it goes to another process, and runs once."""
    host = bgworker_host(configuration(1), start=False, tasks=TASKS)
    points.start(host)
    host.wait_for_state("run")
    spare = wait_for_spares(host, 1).pop()
    points.hold("worker.spare")
    path = tmp_path / "lives"
    with host.client() as client:
        handle = client.register_dynamic_background_worker(registration(str(path)))
        (held,) = points.wait_for("worker.spare")
        assert held.pid == spare
        os.kill(spare, signum)
        points.release("worker.spare")
        status, pid = handle.wait_for_startup(10)
    assert status is BgwHandleStatus.STARTED
    assert pid != spare
    host.wait_until(lambda: path.exists() and path.read_text() == f"first {pid}\n", "the function runs, in one process")
    slot = host.wait_for_worker("dynamic")
    assert (slot["restarts"], slot["last_exit"]) == (0, None)
    assert host.status()["host"]["crash_count"] == 0
    # What the second one prints is read, although the life had another process before.
    assert "another process" in host.log()


def test_stopped_spare_is_not_taken(bgworker_host: MakeHost) -> None:
    """T14: a spare that is stopped with SIGSTOP gets no registration, which would be lost in it; it goes, and another comes."""
    host = bgworker_host(configuration(2), tasks=TASKS)
    spares = wait_for_spares(host, 2)
    for pid in spares:
        os.kill(pid, signal.SIGSTOP)
        # The signal stops it when it is next given a processor.
        host.wait_until(
            lambda pid=pid: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "it has stopped"
        )
    with host.client() as client:
        status, pid = client.register_dynamic_background_worker(registration()).wait_for_startup(10)
    assert status is BgwHandleStatus.STARTED
    wait_for_spares(host, 2, other_than={*spares, pid})


def test_reload_leaves_no_spare_with_older_code(bgworker_host: MakeHost, tmp_path: Path) -> None:
    """C25: what is launched after a reload has the code that the reload has read, although spares were ready before it."""
    host = bgworker_host(configuration(2), tasks=TASKS)
    spares = wait_for_spares(host, 2)
    (host.directory / "tasks.py").write_text(TASKS.replace("first", "second edition"))
    path = tmp_path / "lives"
    with host.client() as client:
        client.reload()
        status, pid = client.register_dynamic_background_worker(registration(str(path))).wait_for_startup(10)
    assert status is BgwHandleStatus.STARTED
    host.wait_until(lambda: path.exists() and path.read_text() == f"second edition {pid}\n", "the function runs")
    wait_for_spares(host, 2, other_than=spares)
    assert not any(title_of(pid) for pid in spares)


def test_shutdown_leaves_no_spare(bgworker_host: MakeHost) -> None:
    """C39: a spare that is stopped with SIGSTOP holds up no shutdown, and none is left behind by one."""
    host = bgworker_host(configuration(2), tasks=TASKS)
    spares = wait_for_spares(host, 2)
    os.kill(min(spares), signal.SIGSTOP)
    assert host.stop() == 0
    assert not any(title_of(pid) for pid in spares)


def test_spares_end_with_a_killed_host(bgworker_host: MakeHost) -> None:
    """C24: SIGKILL of the host takes its spares along."""
    host = bgworker_host(configuration(2), tasks=TASKS)
    spares = wait_for_spares(host, 2)
    host.stop(signal.SIGKILL)
    host.process = None  # a wait must not end because it has
    host.wait_until(lambda: not any(title_of(pid) for pid in spares), "the spares are gone")


@pytest.mark.parametrize("text", [configuration(0), "[host]\nspare_workers = 2\n"])
def test_host_without_spares(bgworker_host: MakeHost, text: str) -> None:
    """With ``spare_workers = 0``, or nothing in memory that a spare could run, none is made and workers start all the same."""
    host = bgworker_host(text, tasks=TASKS)
    with host.client() as client:
        for _ in range(2):
            handle = client.register_dynamic_background_worker(registration())
            assert handle.wait_for_startup(20).status is BgwHandleStatus.STARTED
            assert spares_of(host) == set()
            handle.terminate()
            handle.wait_for_shutdown(10)


def test_loader_takes_its_spares_along(bgworker_host: MakeHost) -> None:
    """Spares of a loader that was killed go; the next loader makes new ones, and a worker of before runs on."""
    host = bgworker_host(configuration(2, WORKER), tasks=TASKS)
    before = host.wait_for_worker("fixed")
    spares = wait_for_spares(host, 2)
    assert host.process is not None
    children = Path(f"/proc/{host.process.pid}/task/{host.process.pid}/children").read_text().split()
    os.kill(next(int(pid) for pid in children if title_of(pid) == b"bgworker: loader"), signal.SIGKILL)
    wait_for_spares(host, 2, other_than=spares)
    assert host.wait_for_worker("fixed") == before
