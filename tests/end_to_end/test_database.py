"""Workers and their database, on the embedded PostgreSQL: phases, connections, NOTIFY, and what survives what."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bgworker.testing import RunningHost, processes_below

MakeHost = Callable[..., RunningHost]

EMBEDDED = '[host]\nmax_worker_processes = 8\n[database]\nurl = "embedded"\n'

DATABASE_WORKER = """
[[worker]]
bgw_name = "{name}"
bgw_library_name = "tasks"
bgw_function_name = "{function}"
bgw_flags = ["BGWORKER_SHMEM_ACCESS", "BGWORKER_BACKEND_DATABASE_CONNECTION"]
{keys}
"""

TASKS = """
from bgworker import spi, worker

def connected(arg):
    worker.unblock_signals()
    worker.connect()
    for _ in worker.latch_loop():
        pass

def notes(arg):
    worker.unblock_signals()
    worker.connect()
    with spi.transaction():
        spi.execute("CREATE TABLE IF NOT EXISTS seen (channel text, payload text, gap bool)")
    for _ in worker.latch_loop():
        for note in worker.notifications():
            with spi.transaction():
                spi.execute("INSERT INTO seen VALUES (%s, %s, %s)", (note.channel, note.payload, note.may_have_missed))

def transactions(arg):
    worker.unblock_signals()
    worker.connect()
    with spi.transaction():
        spi.async_notify("news", "committed 1")
        spi.async_notify("news", "committed 1")
        spi.execute("SELECT 1")
    try:
        with spi.transaction():
            spi.async_notify("news", "rolled back")
            raise ValueError
    except ValueError:
        pass
    with spi.transaction():
        spi.async_notify("news", "committed 2")

def unflagged(arg):
    worker.connect()

def twice(arg):
    worker.connect()
    worker.initialize_connection("postgres", None)
"""


def database_worker(name: str, function: str, keys: str = "") -> str:
    """Return a [[worker]] table of a database worker."""
    return DATABASE_WORKER.format(name=name, function=function, keys=keys)


def test_connection_carries_the_workers_name(make_host: MakeHost) -> None:
    """C17, C20: a database worker starts when the database is read-write; its session is named after it."""
    host = make_host(EMBEDDED + database_worker("reader 1", "connected"), tasks=TASKS)
    host.start_and_wait()
    host.wait_for_worker("reader 1")
    with psycopg.connect(host.database_url(), autocommit=True) as connection:

        def session() -> Any:
            return connection.execute("SELECT usename FROM pg_stat_activity WHERE application_name = 'reader 1'").fetchone()

        assert host.wait_until(session, "its session shows") == ("postgres",)


@pytest.mark.parametrize(
    ("function", "flagged", "expected"),
    [("unflagged", False, "BGWORKER_BACKEND_DATABASE_CONNECTION"), ("twice", True, "once")],
)
def test_connecting_wrongly_is_an_error(make_host: MakeHost, function: str, flagged: bool, expected: str) -> None:
    """C06, C15: without the flag, or a second time, the worker gets an error that says why."""
    entry = database_worker("wrong", function, "bgw_restart_time = 3600")
    if not flagged:
        entry = entry.replace(', "BGWORKER_BACKEND_DATABASE_CONNECTION"', "")
    host = make_host(EMBEDDED + entry, tasks=TASKS)
    host.start_and_wait()
    slot = host.wait_for_worker("wrong", "waiting_restart")
    assert slot["last_exit"]["code"] == 1
    host.wait_until(lambda: expected in host.log("wrong"), "the log says why")


def test_notify_is_delivered_at_commit(make_host: MakeHost) -> None:
    """C26, T72: in commit order, folded within a transaction, and nothing of a transaction rolled back."""
    host = make_host(EMBEDDED, tasks=TASKS)
    host.start_and_wait()
    with psycopg.connect(host.database_url(), autocommit=True) as connection:
        connection.execute("LISTEN news")
        flags = ("--flag", "BGWORKER_SHMEM_ACCESS", "--flag", "BGWORKER_BACKEND_DATABASE_CONNECTION")
        result = host.run_cli("register", "tasks:transactions", "--name", "sender", *flags, "--wait")
        assert result.returncode == 0, result.stderr
        payloads = [note.payload for note in connection.notifies(timeout=20, stop_after=2)]
    assert payloads == ["committed 1", "committed 2"]


def test_wake_on_sets_the_latch(make_host: MakeHost) -> None:
    """C27: a NOTIFY on a channel of wake_on wakes the worker, which reads channel and payload."""
    host = make_host(EMBEDDED + database_worker("sleeper", "notes", 'wake_on = ["orders"]'), tasks=TASKS)
    host.start_and_wait()
    host.wait_for_worker("sleeper")
    with psycopg.connect(host.database_url(), autocommit=True) as connection:
        host.wait_until(lambda: connection.execute("SELECT to_regclass('seen')").fetchone() != (None,), "the worker is ready")
        connection.execute("NOTIFY orders, '42'")
        query = "SELECT payload FROM seen WHERE channel = 'orders' AND payload <> ''"
        host.wait_until(lambda: connection.execute(query).fetchone() == ("42",), "the notification is written down")


def children(host: RunningHost) -> dict[str, int]:
    """Return the host's own children by the last word of their title."""
    assert host.process is not None
    pid = host.process.pid
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        if not command:
            continue  # a zombie that is about to be reaped
        found[command.removeprefix("bgworker: ").split()[0]] = int(child)
    return found


def test_database_process_can_be_killed(make_host: MakeHost) -> None:
    """SIGKILL of the database process changes nothing: PostgreSQL and the sessions go on, wake_on works again."""
    entry = database_worker("sleeper", "notes", 'wake_on = ["orders"]')
    host = make_host(EMBEDDED + entry, tasks=TASKS)
    host.start_and_wait()
    pid = host.wait_for_worker("sleeper")["pid"]
    with psycopg.connect(host.database_url(), autocommit=True) as connection:
        host.wait_until(lambda: connection.execute("SELECT to_regclass('seen')").fetchone() != (None,), "the worker is ready")
        first = children(host)["database"]
        os.kill(first, signal.SIGKILL)
        host.wait_until(lambda: children(host).get("database") not in (None, first), "another database process runs")

        def heard() -> bool:
            connection.execute("NOTIFY orders, 'again'")
            return connection.execute("SELECT 1 FROM seen WHERE payload = 'again'").fetchone() is not None

        host.wait_until(heard, "notifications arrive again")
    slot = host.slot("sleeper")
    assert slot is not None
    assert slot["pid"] == pid
    assert host.status()["host"]["state"] == "run"


def test_killed_postgres_comes_back_and_workers_follow(make_host: MakeHost) -> None:
    """A crash of the embedded server is noticed, the server restarted, and the workers follow; committed rows are there."""
    host = make_host(EMBEDDED + database_worker("reader", "connected", "bgw_restart_time = 0.2"), tasks=TASKS)
    host.start_and_wait()
    host.wait_for_worker("reader")
    with psycopg.connect(host.database_url(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (x int)")
        connection.execute("INSERT INTO kept VALUES (1)")
    postmaster = int((host.data_directory / "pg" / "postmaster.pid").read_text().splitlines()[0])
    os.kill(postmaster, signal.SIGKILL)

    def back() -> bool:
        try:
            with psycopg.connect(host.database_url(), connect_timeout=5) as connection:
                return connection.execute("SELECT x FROM kept").fetchone() == (1,)
        except psycopg.OperationalError:
            return False

    host.wait_until(back, "the server is back with its rows")
    host.wait_for_state("run")
    host.wait_for_worker("reader")


def test_no_postgres_outlives_a_killed_host(make_host: MakeHost) -> None:
    """C24: SIGKILL of the host leaves no PostgreSQL after a second; the next start finds its data."""
    host = make_host(EMBEDDED)
    host.start_and_wait()
    url = host.database_url()
    assert host.process is not None
    host.process.kill()
    host.process.wait()
    deadline = time.monotonic() + 5
    while processes_below(str(host.directory)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes_below(str(host.directory)) == {}
    host.start_and_wait()
    assert host.database_url() == url


def test_data_directory_behind_closed_doors(make_host: MakeHost, tmp_path: Path) -> None:
    """As root, PostgreSQL's own user need not be able to reach the data directory; nobody's permissions are touched."""
    tmp_path.chmod(0o700)
    host = make_host(EMBEDDED.replace("[database]", f'data_directory = "{tmp_path}/data"\n[database]'))
    host.data_directory = tmp_path / "data"
    host.start_and_wait()
    with psycopg.connect(host.database_url()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_data_directory_of_another_version(make_host: MakeHost) -> None:
    """C07: pg/ of another major version is named in the status, with the way out; only workers that need a database wait."""
    idle = '[[worker]]\nbgw_name = "idle"\nbgw_library_name = "tasks"\nbgw_function_name = "idle"\n'
    idle += 'bgw_start_time = "BgWorkerStart_PostmasterStart"\n'
    host = make_host(
        EMBEDDED + idle + database_worker("reader", "connected"),
        tasks=TASKS + "\ndef idle(arg):\n    worker.unblock_signals()\n    for _ in worker.latch_loop():\n        pass\n",
    )
    pg = host.data_directory / "pg"
    (pg / "PG_VERSION").write_text("17\n")
    before = sorted(os.listdir(pg))
    host.start()
    host.wait_for_worker("idle")
    slot = host.wait_for_worker("reader", "not_yet_started")
    host.wait_until(lambda: "made by PostgreSQL 17" in host.status()["host"]["database"]["detail"], "status names the version")
    assert "pg_dumpall" in host.status()["host"]["database"]["detail"]
    assert slot["pid"] is None
    assert sorted(os.listdir(pg)) == before
    assert "ERROR:  cannot use" in host.log()
