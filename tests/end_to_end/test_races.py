"""Races by their numbers in docs/reliability.md, each made to happen by an injection point and not by luck."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from bgworker import BackgroundWorker, BackgroundWorkerHandle, BgwHandleStatus, Client
from bgworker.testing import DEADLINE, RunningHost, processes_below
from tests.end_to_end.points import Points

MakeHost = Callable[..., RunningHost]
Run = Callable[..., RunningHost]


def slow(*values: object) -> ParameterSet:
    """Mark a case that the fast suite can do without: its neighbours go the same way."""
    return pytest.param(*values, marks=pytest.mark.slow)


#: Without spares: they would stop at the points that are meant for the births of the test.
CONFIGURATION = (
    '[host]\nmax_worker_processes = 24\nspare_workers = 0\nshutdown_timeout = 1.0\nshared_preload_libraries = ["racing"]\n'
)
RACING = '''
"""Workers for the races."""
import os, signal
from bgworker import worker

def idle(arg):
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass

def returns(arg):
    return None

def ran(arg):
    "Leave a line that says that this function was called, and had no SIGTERM waiting for it."
    worker.unblock_signals()
    with open(arg, "a") as file:
        file.write(f"{os.getpid()}\\n")
    for _ in worker.latch_loop():
        pass

def shares(arg):
    segment = worker.shared_memory("common", 4096)
    worker.report_activity("idle", "attached")
    if arg == "deaf":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGQUIT})
    idle(None)
'''


@pytest.fixture
def points() -> Iterator[Points]:
    """The injection points of the host under test."""
    controller = Points()
    yield controller
    controller.close()


@pytest.fixture
def run(make_host: MakeHost, points: Points) -> Run:
    """Return a maker of running hosts whose processes come to the points."""

    def start(configuration: str = "") -> RunningHost:
        host = make_host(CONFIGURATION + configuration, racing=RACING)
        points.start(host)
        host.wait_for_state("run")
        return host

    return start


def register(client: Client, function: str = "idle", arg: object = None, **fields: object) -> BackgroundWorkerHandle:
    """Register one worker."""
    worker = BackgroundWorker(
        bgw_name=f"{function} worker",
        bgw_library_name="racing",
        bgw_function_name=function,
        bgw_main_arg=arg,
        **fields,  # type: ignore[arg-type]
    )
    return client.register_dynamic_background_worker(worker)


def in_background(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Run a call that waits, in a thread, and return it with the list that its result is put into."""
    result: list[object] = []
    thread = threading.Thread(target=lambda: result.append(call()), daemon=True)
    thread.start()
    return thread, result


def pid_of(host: RunningHost) -> int:
    assert host.process is not None
    return host.process.pid


def test_points_are_off_without_the_variable(make_host: MakeHost, points: Points) -> None:
    """A host that is started without the variable comes to no injection point."""
    host = make_host(CONFIGURATION, racing=RACING)
    host.start_and_wait()
    with host.client() as client:
        assert register(client).wait_for_startup(DEADLINE).pid
    assert not any(points.came(name) for name in ("loader.birth", "loader.born", "worker.blank", "worker.start", "host.born"))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, slow(signal.SIGUSR1), slow(signal.SIGINT)])
def test_signal_between_fork_and_handlers(run: Run, points: Points, signum: signal.Signals) -> None:
    """T10: a signal that comes before a worker has handlers stays the worker's own; no handler of another process runs."""
    host = run()
    points.hold("worker.blank")
    with host.client() as client:
        handle = register(client, bgw_restart_time=60)
        (held,) = points.wait_for("worker.blank")
        os.kill(held.pid, signum)
        points.release("worker.blank")
        if signum == signal.SIGTERM:
            slot = host.wait_for_worker("idle worker", "waiting_restart")
            assert slot["last_exit"]["code"] == 1
        else:
            assert handle.wait_for_startup(DEADLINE).pid == held.pid
        assert client.host().state == "run"
    assert "received reload request" not in host.log()


@pytest.mark.parametrize("point", [slow("loader.birth"), "loader.born", slow("worker.blank")])
def test_loader_dies_in_a_birth(run: Run, points: Points, tmp_path: Path, point: str) -> None:
    """T05, T06: a loader killed before it clones, before it says so, or after: one process runs the function, once."""
    host = run()
    mark = tmp_path / "ran"
    loader = next(pid for pid, title in processes_below("bgworker: loader").items() if parent(pid) == pid_of(host) and title)
    points.hold(point)
    with host.client() as client:
        handle = register(client, "ran", str(mark))
        points.wait_for(point)
        os.kill(loader, signal.SIGKILL)
        host.wait_until(lambda: "loader process ended" in host.log(), "the host knows that the loader is gone")
        points.release(point)
        pid = handle.wait_for_startup(DEADLINE).pid
        host.wait_until(mark.exists, "the function was called")
        assert mark.read_text().split() == [str(pid)]


def parent(pid: int) -> int:
    """Return the parent of a process; 0 when it has gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def test_births_that_the_kernel_refuses(run: Run, points: Points) -> None:
    """T17: starts that get EAGAIN are tried again after the restart time, without a loop, and say why meanwhile."""
    host = run()
    points.order("loader.birth", "go", *[f"error {errno.EAGAIN}"] * 4)
    with host.client() as client:
        handles = [register(client, bgw_restart_time=1.0) for _ in range(5)]
        host.wait_until(lambda: sum("temporarily unavailable" in slot.reason for slot in client.slots()) == 4, "four say why")
        assert points.came("loader.birth") == 5
        host.wait_until(lambda: all(slot.state == "started" for slot in client.slots()), "all have started")
        assert points.came("loader.birth") == 9, "one try each, and no loop"
        assert {handle.get_pid().status for handle in handles} == {BgwHandleStatus.STARTED}


@pytest.mark.parametrize("point", ["loader.birth", slow("loader.born"), slow("worker.blank"), "worker.start"])
def test_terminate_before_the_start(run: Run, points: Points, tmp_path: Path, point: str) -> None:
    """C35, T33: terminated anywhere before its start, a worker never gets past its signals; who waits is told STOPPED."""
    host = run()
    points.hold(point)
    mark = tmp_path / "ran"
    with host.client() as client, host.client() as other:
        handle = register(client, "ran", str(mark), stop_timeout=0.2)
        points.wait_for(point)
        thread, result = in_background(lambda: handle.wait_for_startup(DEADLINE).status)
        other.terminate(str(handle))
        # Asked after it on the same connection: by its answer the host has taken the termination.
        other.ping()
        points.release(point)
        thread.join(DEADLINE)
        assert result == [BgwHandleStatus.STOPPED]
        host.wait_until(lambda: not client.slots(), "its slot is free")
    assert not mark.exists()
    entry = host.finished("ran worker")
    assert entry is not None


@pytest.mark.parametrize("point", ["worker.exit", "host.exit"])
def test_terminate_while_it_exits(run: Run, points: Points, point: str) -> None:
    """C29, C35, T34: terminated while it exits with 0, a worker is unregistered exactly once, and its successor is left alone."""
    host = run()
    points.hold(point)
    with host.client() as client, host.client() as other:
        handle = register(client, "returns", bgw_restart_time=0)
        points.wait_for(point)
        # The host itself is held at its own point, so that nothing is answered before it is released.
        thread, _ = in_background(lambda: other.terminate(str(handle)))
        if point == "worker.exit":
            thread.join(DEADLINE)
        points.release(point)
        thread.join(DEADLINE)
        assert handle.wait_for_shutdown(DEADLINE).status is BgwHandleStatus.STOPPED
        host.wait_until(lambda: not client.slots(), "its slot is free")
        newcomer = register(client)
        pid = newcomer.wait_for_startup(DEADLINE).pid
        # A handle of a slot that is somebody else's by now.
        handle.terminate()
        assert newcomer.get_pid().pid == pid
        assert handle.get_pid().status is BgwHandleStatus.STOPPED
    finished = [entry for entry in host.status()["finished"] if entry["bgw_name"] == "returns worker"]
    assert len(finished) == 1


def test_requester_dies_before_the_start(run: Run, points: Points) -> None:
    """T36: who registers and is killed before the start leaves a worker that starts, and a slot that can be freed."""
    host = run()
    points.hold("loader.birth")
    script = (
        "import sys, time, bgworker\n"
        "client = bgworker.connect(sys.argv[1])\n"
        "worker = bgworker.BackgroundWorker(bgw_name='orphan', bgw_library_name='racing', bgw_function_name='idle')\n"
        "client.register_dynamic_background_worker(worker)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(host.data_directory)]) as requester:
        points.wait_for("loader.birth")
        requester.kill()
    points.release("loader.birth")
    host.wait_for_worker("orphan")
    with host.client() as client:
        client.terminate("orphan").wait_for_shutdown(DEADLINE)
        assert not client.slots()


@pytest.mark.parametrize(
    ("point", "signum"),
    [
        # Ten seconds: a loader that leaves a birth unanswered is given so long, during a shutdown too.
        slow("loader.birth", signal.SIGTERM),
        ("worker.blank", signal.SIGTERM),
        slow("worker.start", signal.SIGTERM),
        slow("loader.birth", signal.SIGKILL),
        slow("worker.blank", signal.SIGKILL),
        ("worker.start", signal.SIGKILL),
    ],
)
def test_host_ends_while_a_start_is_waited_for(run: Run, points: Points, point: str, signum: signal.Signals) -> None:
    """C36, C38, T37: a wait for a start ends with the host, wherever that is: STOPPED, or POSTMASTER_DIED when killed."""
    host = run()
    points.hold(point)
    with host.client() as client:
        handle = register(client)
        points.wait_for(point)
        thread, result = in_background(lambda: handle.wait_for_startup(DEADLINE).status)
        host.stop(signum)
        thread.join(DEADLINE)
    # A host that is shutting down may be gone before the answer has been read.
    expected = {BgwHandleStatus.POSTMASTER_DIED} | ({BgwHandleStatus.STOPPED} if signum == signal.SIGTERM else set())
    assert set(result) <= expected
    assert len(result) == 1


def test_second_crash_during_the_reinitialisation(run: Run, points: Points) -> None:
    """C31, T39: a second worker that crashes before the first one's end is taken note of is part of the same reinitialisation."""
    share = '[[worker]]\nbgw_name = "{}"\nbgw_library_name = "racing"\nbgw_function_name = "shares"\nbgw_restart_time = 3600\n'
    host = run("".join(share.format(f"share {n}") for n in range(4)))
    host.wait_until(
        lambda: [slot["activity"]["text"] for slot in host.status()["slots"]] == ["attached"] * 4, "four share their memory"
    )
    pids = [slot["pid"] for slot in host.status()["slots"]]
    points.hold("host.exit")
    os.kill(pids[0], signal.SIGKILL)
    points.wait_for("host.exit")
    os.kill(pids[1], signal.SIGKILL)
    points.release("host.exit")
    host.wait_until(
        lambda: all(slot["state"] == "started" and slot["pid"] not in pids for slot in host.status()["slots"]), "all run again"
    )
    slots = host.status()["slots"]
    assert [slot["restarts"] for slot in slots] == [1] * 4
    assert host.log().count("reinitializ") + host.log().count("reinitialis") <= 1, host.log()


@pytest.mark.parametrize(
    ("mode", "point"),
    [
        ("smart", "loader.birth"), slow("smart", "worker.blank"), slow("smart", "worker.start"),
        slow("fast", "loader.birth"), ("fast", "worker.blank"), slow("fast", "worker.start"),
        slow("immediate", "loader.birth"), slow("immediate", "worker.blank"), ("immediate", "worker.start"),
    ],
)  # fmt: skip
def test_shutdown_while_twenty_start(run: Run, points: Points, tmp_path: Path, mode: str, point: str) -> None:
    """C39, T75: a shutdown that meets twenty starting workers ends with code 0; fast and immediate let none start."""
    host = run()
    points.hold(point)
    mark = tmp_path / "ran"
    with host.client() as client:
        for _ in range(20):
            register(client, "ran", str(mark), bgw_restart_time=5.0)
        # The loader clones one after another: held there, only the first has come.
        points.wait_for(point, 1 if point == "loader.birth" else 20)
        client.stop(mode)
        client.ping()
    # A smart shutdown is over for those who never start as soon as this client, which held their handles, has gone.
    points.release(point)
    assert host.process is not None
    assert host.process.wait(timeout=DEADLINE) == 0
    assert not processes_below(str(host.directory))
    if mode != "smart":
        assert not mark.exists()
