"""The embedded server crashes, as a whole or in one session: it comes back, with what was committed, and workers follow."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import psycopg.conninfo
import pytest

from bgworker import WaitTimeout
from bgworker.testing import RunningHost

MakeHost = Callable[..., RunningHost]

HEAD = '[host]\nmax_worker_processes = 8\nshared_preload_libraries = ["tasks"]\n[database]\nurl = "embedded"\n'

TASKS = """
import psycopg
from bgworker import spi, worker

def idle(arg):
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass

def ticker(arg):
    "Commits a row ten times a second, so that it meets every trouble of its connection."
    worker.unblock_signals()
    worker.connect()
    for _ in worker.latch_loop(timeout=0.1):
        with spi.transaction():
            spi.execute("CREATE TABLE IF NOT EXISTS ticks (at timestamptz)")
            spi.execute("INSERT INTO ticks VALUES (clock_timestamp())")
"""

WORKERS = """
[[worker]]
bgw_name = "clock"
bgw_library_name = "tasks"
bgw_function_name = "idle"
bgw_start_time = "BgWorkerStart_PostmasterStart"
[[worker]]
bgw_name = "bound"
bgw_library_name = "tasks"
bgw_function_name = "idle"
stop_when = "phase_lost"
[[worker]]
bgw_name = "ticker"
bgw_library_name = "tasks"
bgw_function_name = "ticker"
bgw_flags = ["BGWORKER_SHMEM_ACCESS", "BGWORKER_BACKEND_DATABASE_CONNECTION"]
bgw_restart_time = 0.2
"""


@pytest.fixture
def host(make_host: MakeHost) -> RunningHost:
    """A host with an embedded server, and the three kinds of workers."""
    host = make_host(HEAD + WORKERS, tasks=TASKS)
    host.start_and_wait()
    for name in ("clock", "bound", "ticker"):
        host.wait_for_worker(name)
    host.wait_until(lambda: query(host, "SELECT to_regclass('ticks')") not in (None, [(None,)]), "the ticker ticks")
    return host


def postmaster(host: RunningHost) -> int:
    """Return the pid of the embedded server; 0 while there is none."""
    try:
        return int((host.data_directory / "pg" / "postmaster.pid").read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return 0


def query(host: RunningHost, sql: str) -> list[Any] | None:
    """Return the rows, or None while the server does not answer."""
    try:
        with psycopg.connect(host.database_url(), connect_timeout=5) as connection:
            return connection.execute(sql).fetchall()
    except psycopg.OperationalError:
        return None


def leave_work_behind(host: RunningHost) -> psycopg.Connection[Any]:
    """Commit one row, and return a connection with another that is not committed."""
    connection = psycopg.connect(host.database_url())
    connection.execute("CREATE TABLE work (what text)")
    connection.execute("INSERT INTO work VALUES ('committed')")
    connection.commit()
    connection.execute("INSERT INTO work VALUES ('not committed')")
    return connection


def assert_all_is_well_again(host: RunningHost, before: dict[str, Any]) -> None:
    """The server has what was committed, workers with a connection are back, the others were left alone."""
    host.wait_for_state("run")
    host.wait_until(lambda: query(host, "SELECT what FROM work") == [("committed",)], "committed work is there, and no other")
    (ticks,) = host.wait_until(lambda: query(host, "SELECT count(*) FROM ticks"), "the server answers")
    host.wait_until(lambda: (query(host, "SELECT count(*) FROM ticks") or [ticks])[0] > ticks, "the ticker ticks again")
    ticker = host.wait_for_worker("ticker")
    assert ticker["restarts"] > before["ticker"]["restarts"]
    assert ticker["last_exit"]["code"] == 1
    clock = host.wait_for_worker("clock")
    assert (clock["pid"], clock["restarts"]) == (before["clock"]["pid"], 0)
    assert host.status()["host"]["crash_count"] == 0, "no worker crashed"


def slots(host: RunningHost) -> dict[str, Any]:
    """Return all slots by the worker's name."""
    return {slot["bgw_name"]: slot for slot in host.status()["slots"]}


def test_killed_postmaster(host: RunningHost) -> None:
    """SIGKILL of the server: the host says so and starts it again, phases go down and up, workers follow."""
    before, first = slots(host), postmaster(host)
    unfinished = leave_work_behind(host)
    states = []
    with host.client() as client, client.events() as events:
        os.kill(first, signal.SIGKILL)
        host.wait_until(lambda: slots(host)["bound"]["restarts"] == 1, "the phase was lost, and is back")
        bound = host.wait_for_worker("bound")
        assert_all_is_well_again(host, before)
        try:
            while True:
                event = events.next_event(0)
                states += [event["state"]] if event["event"] == "host" and event["state"] not in states[-1:] else []
        except WaitTimeout:
            pass
    assert states == ["starting", "run"]
    assert bound["pid"] != before["bound"]["pid"]
    assert postmaster(host) not in (0, first)
    assert f"embedded PostgreSQL (PID {first}) was terminated by signal 9: Killed" in host.log()
    with pytest.raises(psycopg.OperationalError):
        unfinished.commit()
    unfinished.close()


def test_killed_session(host: RunningHost) -> None:
    """SIGKILL of one session: PostgreSQL itself ends all of them and recovers; the host starts nothing, workers follow."""
    before, first = slots(host), postmaster(host)
    unfinished = leave_work_behind(host)
    ((victim,),) = query(host, "SELECT pid FROM pg_stat_activity WHERE application_name = 'ticker'") or [(0,)]
    os.kill(victim, signal.SIGKILL)
    host.wait_until(lambda: slots(host)["ticker"]["restarts"] > before["ticker"]["restarts"], "the ticker has come back")
    assert_all_is_well_again(host, before)
    assert postmaster(host) == first
    with pytest.raises(psycopg.OperationalError):
        unfinished.commit()
    unfinished.close()


def test_killed_in_recovery(host: RunningHost) -> None:
    """SIGKILL again and again while the server recovers: it is started each time, and the last time it gets through."""
    before, last = slots(host), postmaster(host)
    unfinished = leave_work_behind(host)
    for _ in range(3):
        try:
            os.kill(last, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has given up by itself, because processes of its predecessor were still there
        # As soon as it has taken the data directory, which is before it begins to recover.
        last = host.wait_until(lambda last=last: (pid := postmaster(host)) not in (0, last) and pid, "the server is started again")
    assert_all_is_well_again(host, before)
    unfinished.close()


@pytest.mark.parametrize("name", ["postmaster.pid", ".s.PGSQL.5432.lock"])
def test_killed_while_it_wrote_a_lock_file(host: RunningHost, name: str) -> None:
    """An empty lock file, which PostgreSQL itself never gets past, is removed: the server comes back without anybody's help."""
    before, last = slots(host), postmaster(host)
    sockets = Path(psycopg.conninfo.conninfo_to_dict(host.database_url())["host"])
    unfinished = leave_work_behind(host)
    os.kill(last, signal.SIGSTOP)
    os.truncate((host.data_directory / "pg" if name == "postmaster.pid" else sockets) / name, 0)
    os.kill(last, signal.SIGKILL)
    assert_all_is_well_again(host, before)
    assert f'removed empty lock file "{name}"' in host.log()
    unfinished.close()
