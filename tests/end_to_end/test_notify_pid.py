"""bgw_notify_pid under a real host: who gets SIGUSR1 when a worker starts and exits, and who does not (C13)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bgworker import BackgroundWorker
from bgworker.testing import RunningHost

MakeHost = Callable[..., RunningHost]

HEAD = '[host]\nmax_worker_processes = 8\nshared_preload_libraries = ["tasks"]\n'
TASKS = '''
"""A job, and a worker that has it run and is told of it."""
import os
from bgworker import BackgroundWorker, worker

def job(arg):
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass

def parent(path):
    """Write down what becomes of a job, asleep on the latch in between: nothing but the signal can wake it."""
    worker.unblock_signals()
    registration = BackgroundWorker(
        bgw_name="job", bgw_library_name="tasks", bgw_function_name="job", bgw_notify_pid=os.getpid())
    handle, said = worker.register_dynamic_background_worker(registration), None
    while True:
        status = handle.get_pid().status.name
        if status != said:
            with open(path, "a") as file:
                file.write(status + " ")
            said = status
        worker.wait_latch()
        worker.reset_latch()
'''
JOB = BackgroundWorker(bgw_name="job", bgw_library_name="tasks", bgw_function_name="job", bgw_restart_time=3600.0)


def job(pid: int) -> BackgroundWorker:
    """Return a registration that notifies this process."""
    return BackgroundWorker(
        bgw_name="job", bgw_library_name="tasks", bgw_function_name="job", bgw_restart_time=3600.0, bgw_notify_pid=pid
    )


@pytest.fixture
def host(make_host: MakeHost) -> RunningHost:
    host = make_host(HEAD, tasks=TASKS)
    host.start_and_wait()
    return host


@pytest.fixture
def signals() -> Iterator[list[int]]:
    """Return the list of the SIGUSR1 that this very process has got."""
    got: list[int] = []
    previous = signal.signal(signal.SIGUSR1, lambda signum, _frame: got.append(signum))
    yield got
    signal.signal(signal.SIGUSR1, previous)


def test_client_is_told_of_each_start_and_exit(host: RunningHost, signals: list[int]) -> None:
    """C13: a connected client gets SIGUSR1 at the start, at the exit, at both again after a restart, and then no more."""
    with host.client() as client:
        handle = client.register_dynamic_background_worker(job(os.getpid()))
        host.wait_until(lambda: len(signals) == 1, "the start is told")
        first = handle.get_pid().pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        host.wait_until(lambda: handle.get_pid().pid not in (None, first), "it is back")
        client.ping()
        # Of two signals that come before the first is taken the kernel keeps one (signal(7)), and a restart is that quick.
        assert len(signals) in (2, 3)
        told = len(signals)
        handle.terminate()
        handle.wait_for_shutdown(30)
        host.wait_until(lambda: len(signals) == told + 1, "the last exit is told")
        client.register_dynamic_background_worker(JOB).wait_for_startup(30)
    assert len(signals) == told + 1


@pytest.mark.parametrize("is_executed_anew", [False, True])
def test_worker_is_told_of_its_child(host: RunningHost, tmp_path: Path, is_executed_anew: bool) -> None:
    """C13: T80: a worker asleep on its latch is woken by its child's start and exit, also after an execution in between."""
    path = tmp_path / "said"
    with host.client() as client:
        parent = BackgroundWorker(bgw_name="parent", bgw_library_name="tasks", bgw_function_name="parent", bgw_main_arg=str(path))
        client.register_dynamic_background_worker(parent)
        host.wait_for_worker("job")
        host.wait_until(lambda: path.exists() and path.read_text().endswith("STARTED "), "the parent knows that it runs")
        if is_executed_anew:
            client.reexec()
        client.terminate("job")
        host.wait_until(lambda: path.read_text().endswith("STOPPED "), "the parent knows that it is over")


_CLIENT = """
import os, signal, sys, time
import bgworker
client = bgworker.connect(sys.argv[1])
worker = bgworker.BackgroundWorker(
    bgw_name="job", bgw_library_name="tasks", bgw_function_name="job", bgw_notify_pid=os.getpid())
handle = client.register_dynamic_background_worker(worker)
handle.wait_for_startup(30)
client.ping()
print("alive", flush=True)
sys.stdin.readline()
got = []
signal.signal(signal.SIGUSR1, lambda *_: got.append(1))
handle.terminate()
deadline = time.monotonic() + 30
while not got and time.monotonic() < deadline:
    time.sleep(0.01)
print("signalled" if got else "not signalled", flush=True)
"""


def test_process_that_the_signal_would_kill_gets_none(host: RunningHost) -> None:
    """C13: a client with the default action lives on, and the log says why it is not told; with a handler it is told."""
    client = subprocess.Popen(
        [sys.executable, "-P", "-c", _CLIENT, str(host.data_directory)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == "alive\n"
        expected = f'process {client.pid} is not notified by signal about background worker "job" for now'
        host.wait_until(lambda: expected in host.log(), "the log says why")
        output, _ = client.communicate("\n", timeout=60)
        assert output == "signalled\n"
        assert client.returncode == 0
    finally:
        client.kill()
        client.wait()


def test_strangers_are_never_signalled(host: RunningHost, signals: list[int]) -> None:
    """C13: T28: a pid that is no worker and no connected client is no target, be it ready for the signal or not."""
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        with host.client() as client:
            for pid in (stranger.pid, 1, os.getppid()):
                handle = client.register_dynamic_background_worker(job(pid))
                handle.wait_for_startup(30)
                expected = f'worker notification PID {pid} of background worker "job" is not valid'
                host.wait_until(lambda text=expected: text in host.log(), "the log says so")  # type: ignore[misc]
                handle.terminate()
                handle.wait_for_shutdown(30)
        assert stranger.poll() is None
        assert signals == []
    finally:
        stranger.kill()
        stranger.wait()


def test_client_that_has_gone_is_forgotten(make_host: MakeHost) -> None:
    """C13: a target that has ended before the worker costs nothing: no signal, no descriptor that stays."""
    # A spare has descriptors of the host's, too, and may be born after they are counted.
    host = make_host(HEAD + "spare_workers = 0\n", tasks=TASKS)
    host.start_and_wait()
    script = (
        "import os, signal, sys, bgworker\nsignal.signal(signal.SIGUSR1, lambda *_: None)\n"
        "worker = bgworker.BackgroundWorker(bgw_name='job', bgw_library_name='tasks', bgw_function_name='job', "
        "bgw_notify_pid=os.getpid())\n"
        "bgworker.connect(sys.argv[1]).register_dynamic_background_worker(worker).wait_for_startup(30)\nos._exit(0)\n"
    )
    with host.client() as client:
        assert host.process is not None
        folder = Path(f"/proc/{host.process.pid}/fd")
        before = len(list(folder.iterdir()))
        subprocess.run([sys.executable, "-P", "-c", script, str(host.data_directory)], check=True, timeout=60)
        client.terminate("job")
        host.wait_until(lambda: host.finished("job"), "it is over")
        host.wait_until(lambda: len(list(folder.iterdir())) <= before, "its descriptors are closed")
        client.ping()


def test_client_is_told_after_an_execution(host: RunningHost, signals: list[int]) -> None:
    """C13: T80: a client that is notified of a worker is so by the host that has executed itself anew, and by the one after it."""
    with host.client() as client:
        handle = client.register_dynamic_background_worker(job(os.getpid()))
        host.wait_until(lambda: len(signals) == 1, "the start is told")
        for _ in range(2):
            client.reexec()
            assert len(signals) == 1, "an execution is no news"
        handle.terminate()
        handle.wait_for_shutdown(30)
        host.wait_until(lambda: len(signals) == 2, "the exit is told")
        assert "is not notified" not in host.log()
