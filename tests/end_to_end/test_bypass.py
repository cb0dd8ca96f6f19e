"""A real host, its embedded PostgreSQL, and a worker in a database that allows no connections (C18)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from bgworker.errors import HostError
from bgworker.testing import RunningHost
from tests.end_to_end.test_database import EMBEDDED, children, database_worker

MakeHost = Callable[..., RunningHost]

TASKS = """
import os
import time
from bgworker import spi, worker
from bgworker._worker.runtime import current

def bypass(arg):
    worker.unblock_signals()
    worker.initialize_connection("shut", "mute", worker.BGWORKER_BYPASS_ALLOWCONN | worker.BGWORKER_BYPASS_ROLELOGINCHECK)
    with spi.transaction():
        worker.report_activity("connected", str(spi.execute("SELECT current_database(), current_user").fetchone()))
    for _ in worker.latch_loop():
        pass

def refused(arg):
    worker.unblock_signals()
    worker.initialize_connection("shut")

def hang(arg):
    # Killed by the test after its database was opened and before it has connected.
    worker.unblock_signals()
    answer = current().channel.request("open_database", {"database": "shut"})
    assert answer["error"] == "", answer
    worker.report_activity("opened", str(os.getpid()))
    time.sleep(600)
"""
SHUT, OPEN = (False, 7), (True, 0)


@pytest.fixture
def host(make_host: MakeHost) -> RunningHost:
    """A host with a closed database; the tests give it workers."""
    host = make_host(EMBEDDED, tasks=TASKS)
    host.start_and_wait()
    with psycopg.connect(host.database_url(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE shut ALLOW_CONNECTIONS false CONNECTION LIMIT 7")
        connection.execute("CREATE ROLE mute")
    return host


def values(host: RunningHost) -> Any:
    """Return what the server says about the database now."""
    with psycopg.connect(host.database_url(), autocommit=True) as connection:
        return connection.execute("SELECT datallowconn, datconnlimit FROM pg_database WHERE datname = 'shut'").fetchone()


def start(host: RunningHost, name: str) -> None:
    """Have the host run one of the workers, and no other."""
    never = 'bgw_restart_time = "BGW_NEVER_RESTART"'  # a crash would bring it back at once
    host.config_path.write_text(EMBEDDED + database_worker(name, name, never))
    assert host.run_cli("reload").returncode == 0


def wait_for_opened(host: RunningHost, last: int = 0) -> int:
    """Wait until the worker that hangs, not its last life, has its database open; return its pid."""

    def is_open() -> bool:
        slot = host.slot("hang")
        # A new life shows the activity of the last one until it has cleared it.
        return slot is not None and slot["pid"] != last and slot["activity"]["text"] == str(slot["pid"])

    host.wait_until(is_open, "the worker hangs")
    assert values(host) == OPEN
    return int(host.wait_for_worker("hang")["pid"])


def test_bypass_and_refusal(host: RunningHost) -> None:
    """C18, C15: with the flags it runs there, and nothing of it stays; without them exit code 1, and status says why."""
    start(host, "bypass")
    host.wait_until(lambda: (host.slot("bypass") or {}).get("activity", {}).get("state") == "connected", "it is connected")
    slot = host.slot("bypass")
    assert slot is not None
    assert slot["activity"]["text"] == "('shut', 'mute')"
    host.wait_until(lambda: values(host) == SHUT, "the old values")
    start(host, "refused")
    host.wait_until(lambda: host.finished("refused"), "it is over")
    last_exit = host.finished("refused")["last_exit"]
    assert last_exit["code"] == 1
    assert 'database "shut" is not currently accepting connections' in last_exit["reason"]
    with host.client() as client, pytest.raises(HostError, match="only background workers may ask for it"):
        client._connection.request("open_database", {"database": "shut"}, 10)
    assert values(host) == SHUT


def test_kills_in_between(host: RunningHost) -> None:
    """C18: SIGKILL of worker, database process or host while the database is open: it is closed again."""
    start(host, "hang")
    pid = wait_for_opened(host)
    os.kill(pid, signal.SIGKILL)
    host.wait_until(lambda: values(host) == SHUT, "closed after the worker's death", timeout=20)  # less than the deadline

    # One that has not answered the worker, then one that has.
    database = children(host)["database"]
    os.kill(database, signal.SIGSTOP)
    assert host.run_cli("start", "hang").returncode == 0
    host.wait_for_worker("hang")
    os.kill(database, signal.SIGKILL)
    pid = wait_for_opened(host, pid)
    os.kill(children(host)["database"], signal.SIGKILL)
    host.wait_until(lambda: values(host) == SHUT, "closed by the next database process")

    assert host.run_cli("restart", "hang").returncode == 0
    wait_for_opened(host, pid)
    assert host.process is not None
    host.process.kill()
    host.process.wait()
    host.config_path.write_text(EMBEDDED)
    host.start_and_wait()
    host.wait_until(lambda: values(host) == SHUT, "closed under the next host")
