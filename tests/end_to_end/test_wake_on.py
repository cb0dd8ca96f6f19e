"""Workers woken by NOTIFY in every database, and what a server that goes away does to them; on the embedded PostgreSQL."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import psutil
import psycopg
import pytest

from bgworker.testing import RunningHost
from tests.end_to_end.test_database import EMBEDDED, children

MakeHost = Callable[..., RunningHost]

WORKER = """
[[worker]]
bgw_name = "{name}"
bgw_library_name = "wakers"
bgw_function_name = "{function}"
bgw_restart_time = 0.2
bgw_flags = ["BGWORKER_SHMEM_ACCESS", "BGWORKER_BACKEND_DATABASE_CONNECTION"]
{keys}
"""

WAKERS = """
import signal

from bgworker import aio, spi, worker

def shows(database):
    worker.unblock_signals()
    worker.initialize_connection(database)
    print("connected", flush=True)
    for _ in worker.latch_loop():
        for note in worker.notifications():
            print("missed" if note.may_have_missed else "heard", note.channel, note.payload[:10])

async def shows_async(database):
    await aio.initialize_connection(database)
    print("connected", flush=True)
    async for _ in aio.latch_loop():
        for note in aio.notifications():
            print("missed" if note.may_have_missed else "heard", note.channel, note.payload[:10])

def busy(arg):
    worker.connect()
    print("connected", flush=True)
    signal.sigwait({signal.SIGUSR1})   # plain code: nobody reads the channel
    worker.wait_latch()
    notes = worker.notifications()
    print("notes", len(notes), "missed", [note.channel for note in notes if note.may_have_missed])
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass
"""


def waker(name: str, function: str = "shows", keys: str = "") -> str:
    """Return a [[worker]] table."""
    return WORKER.format(name=name, function=function, keys=keys)


def connect(host: RunningHost, database: str = "postgres") -> psycopg.Connection[Any]:
    """Connect to the embedded server as its administrator."""
    return psycopg.connect(host.database_url(), dbname=database, autocommit=True)


def said(host: RunningHost, name: str, text: str, count: int = 1) -> None:
    """Wait until a worker has said this so many times."""
    host.wait_until(lambda: host.log(name).count(text) >= count, f"{name} says {text}")


@pytest.fixture
def in_two_databases(make_host: MakeHost) -> RunningHost:
    """A host with workers in the configured database and in "shop", all of them on the channel "orders"."""
    here, shop = 'wake_on = ["orders"]', 'wake_on = ["orders"]\nbgw_main_arg = "shop"'
    tables = waker("here", keys=here) + waker("shop", keys=shop) + waker("async-shop", "shows_async", shop)
    host = make_host(EMBEDDED + tables, wakers=WAKERS)
    host.start_and_wait("run")
    with connect(host) as connection:
        connection.execute("CREATE DATABASE shop")
    for name in ("here", "shop", "async-shop"):
        said(host, name, "missed orders")
    return host


def test_wakes_in_the_database_that_the_worker_is_in(in_two_databases: RunningHost) -> None:
    """C27: wake_on works in each database that a worker connects to, and a channel is one of its database alone."""
    host = in_two_databases
    with connect(host, "shop") as connection:
        connection.execute("NOTIFY orders, 'in shop'")
    with connect(host) as connection:
        connection.execute("NOTIFY orders, 'here'")
        said(host, "here", "heard orders here")
        for name in ("shop", "async-shop"):
            said(host, name, "heard orders in shop")
        query = "SELECT datname FROM pg_stat_activity WHERE application_name = 'bgworker listener' ORDER BY 1"
        assert connection.execute(query).fetchall() == [("postgres",), ("shop",)]
    assert "in shop" not in host.log("here")
    assert "heard orders here" not in host.log("shop") + host.log("async-shop")


def test_database_that_refuses_the_listener_is_in_the_status(in_two_databases: RunningHost) -> None:
    """C27: a database that cannot be listened in is named in status, once in the log, and a note follows when it can."""
    host = in_two_databases
    with connect(host) as connection:
        connection.execute("ALTER DATABASE shop ALLOW_CONNECTIONS false")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'bgworker listener'")

        def detail() -> str:
            return str(host.status()["host"]["database"]["detail"])

        host.wait_until(lambda: 'wake_on is not heard in database "shop"' in detail(), "status says it")
        host.wait_until(lambda: "not currently accepting connections" in detail(), "and why")
        connection.execute("ALTER DATABASE shop ALLOW_CONNECTIONS true")
    for name in ("shop", "async-shop"):
        said(host, name, "missed orders", 2)
    assert detail() == ""
    assert host.log().count("is not currently accepting connections") == 1


def test_lost_server_ends_sleeping_workers_and_they_follow_it(in_two_databases: RunningHost) -> None:
    """C20, C30: workers that merely sleep end with exit code 1 when the server is killed, and come back with it."""
    host = in_two_databases
    names = ("here", "shop", "async-shop")
    before = {name: host.wait_for_worker(name)["pid"] for name in names}
    postmaster = int((host.data_directory / "pg" / "postmaster.pid").read_text().splitlines()[0])
    os.kill(postmaster, signal.SIGKILL)
    for name in names:
        host.wait_until(lambda name=name: (host.slot(name) or {}).get("pid") not in (None, before[name]), "another life")  # type: ignore[misc]
        slot = host.wait_for_worker(name)
        assert slot["last_exit"]["code"] == 1
        said(host, name, "missed orders", 2)
        assert f'terminating background worker "{name}" because its database connection was lost: ' in host.log(name)
        assert slot["last_exit"]["reason"].startswith("exit 1: database connection lost: ")
    assert "database connection lost" in (host.data_directory / "history.jsonl").read_text()
    with connect(host, "shop") as connection:
        connection.execute("NOTIFY orders, 'again'")
    said(host, "shop", "heard orders again")
    assert host.status()["host"]["crash_count"] == 0


def test_busy_listener_blocks_no_writer_and_costs_bounded_memory(make_host: MakeHost) -> None:
    """C27, T74: 10,000 long notifications wait for nobody, and are bounded for who does not read: one note stands for them."""
    host = make_host(EMBEDDED + waker("busy", "busy", 'wake_on = ["orders"]'), wakers=WAKERS)
    host.start_and_wait("run")
    said(host, "busy", "connected")
    database = children(host)["database"]
    assert host.process is not None
    processes = [psutil.Process(pid) for pid in (host.process.pid, database, host.wait_for_worker("busy")["pid"])]
    with connect(host) as connection:
        listening = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'bgworker listener' AND query LIKE 'LISTEN%'"
        host.wait_until(lambda: connection.execute(listening).fetchone(), "it listens")
        before = [process.memory_info().rss for process in processes]
        os.kill(database, signal.SIGSTOP)
        # Commits although the listener does not read at all.
        connection.execute("SELECT count(pg_notify('orders', n || repeat('x', 7900))) FROM generate_series(1, 10000) n")
        os.kill(database, signal.SIGCONT)
        drained = "SELECT pg_notification_queue_usage() = 0"
        host.wait_until(lambda: connection.execute(drained).fetchone() == (True,), "the flood is heard")
    assert host.run_cli("signal", "busy", "--signal", "SIGUSR1").returncode == 0
    said(host, "busy", "missed ['orders']")
    after = [process.memory_info().rss for process in processes]
    grown = [(now - then) // 1_048_576 for then, now in zip(before, after, strict=True)]
    assert max(grown) < 20, f"host, database process and worker have grown by {grown} MiB"
    assert host.wait_for_worker("busy")["pid"] == processes[2].pid


def test_notification_is_an_event_for_who_asks(in_two_databases: RunningHost) -> None:
    """C27: what wakes workers is told to subscribers that ask for it, with its database."""
    host = in_two_databases
    with host.client() as client, client.events(notifications=True) as events, connect(host, "shop") as connection:
        connection.execute("NOTIFY orders, '42'")
        while (event := events.next_event(timeout=20))["event"] != "notify":
            pass
    assert (event["database"], event["channel"], event["message"]) == ("shop", "orders", "notify orders: 42")
