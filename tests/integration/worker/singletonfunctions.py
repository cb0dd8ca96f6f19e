"""Functions of singleton workers."""

from __future__ import annotations

import signal
import sys
from typing import Any

import psycopg

from bgworker import aio, spi, worker

LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid()"


def say(text: object) -> None:
    sys.stdout.write(f"{text}\n")  # line-buffered by the runtime


def attempt(what: Any, *args: Any) -> None:
    try:
        what(*args)
    except worker.UsageError as error:
        say(f"{error}; {error.message_detail}")


def hold(_arg: Any) -> None:
    """Never ask for the connection."""
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass


def claim(arg: list[Any]) -> None:
    """Ask for the connection: in the wrong places, in the right one, and once more."""
    attempt(worker.initialize_connection, "template1")
    attempt(worker.initialize_connection, None, "pg_monitor")
    attempt(worker.initialize_connection, "template1", "pg_monitor", 2)
    connection = worker.initialize_connection(*arg)
    say(f"{connection.autocommit} {connection.execute(LOCKS).fetchone()}")
    with spi.transaction():
        say(spi.execute("SHOW statement_timeout").fetchone())
    attempt(worker.connect)


def claim_by_oid(_arg: Any) -> None:
    oids = (
        "SELECT oid::int, (SELECT oid::int FROM pg_roles WHERE rolname = current_user) FROM pg_database WHERE datname = 'postgres'"
    )
    with spi.transaction():
        row = spi.execute(oids).fetchone()
        assert row is not None
    connection = worker.initialize_connection_by_oid(*row)
    say(connection.execute(LOCKS).fetchone())


async def claim_async(_arg: Any) -> None:
    try:
        await aio.initialize_connection("template1")
    except worker.UsageError as error:
        say(error)
    connection = await aio.connect_database()
    say(f"{connection.autocommit} {await (await connection.execute(LOCKS)).fetchone()}")
    async with aio.transaction():
        say(await (await aio.execute("SELECT 1")).fetchone())
    try:
        await connection.execute("LISTEN news")
    except worker.UsageError as error:
        say(error)
    try:
        await connection.execute("SELECT no_such_column")
    except psycopg.Error as error:
        say(type(error).__name__)
    try:
        await aio.connect_database()
    except worker.UsageError as error:
        say(error)


async def hold_async(_arg: Any) -> None:
    """Never ask for the connection."""
    async for _ in aio.latch_loop():
        pass


def blocked(_arg: Any) -> None:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    say({signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1} <= mask)
