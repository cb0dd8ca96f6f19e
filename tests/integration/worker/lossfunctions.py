"""Workers' functions whose connection ends, or that LISTEN; blocking ones and their async twins."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager
from typing import Any

import psycopg

from bgworker import aio, spi, worker
from bgworker._worker.runtime import current


def say(text: object) -> None:
    sys.stdout.write(f"{text}\n")  # line-buffered by the runtime


@contextmanager
def told(what: str) -> Any:
    """Say that clean-up ran, and after which exception."""
    try:
        yield
    except BaseException as error:
        say(f"{what} left by {type(error).__name__}")
        raise


def lose(how: str) -> None:
    connection = worker.connect()
    worker.unblock_signals()
    with spi.transaction():
        spi.execute("CREATE TABLE IF NOT EXISTS losses (mark text)")
    say(connection.info.backend_pid)
    with told(how):
        LOSSES[how](connection)


def _asleep(_connection: psycopg.Connection[Any]) -> None:
    worker.wait_latch(wait_event="Idle")


def _loop(_connection: psycopg.Connection[Any]) -> None:
    for _ in worker.latch_loop(wait_event="Idle"):
        pass


def _query(_connection: psycopg.Connection[Any]) -> None:
    with spi.transaction():
        spi.execute("INSERT INTO losses VALUES ('torn')")
        spi.execute("SELECT pg_sleep(600)")


def _plain_query(connection: psycopg.Connection[Any]) -> None:
    connection.execute("SELECT pg_sleep(600)")


def _busy(_connection: psycopg.Connection[Any]) -> None:
    while True:
        worker.check_for_interrupts()


def _swallowed(connection: psycopg.Connection[Any]) -> None:
    """An author that catches everything of psycopg's and goes on."""
    while True:
        try:
            with spi.transaction():
                spi.execute("SELECT pg_sleep(600)")
        except psycopg.Error as error:
            say(type(error).__name__)


LOSSES: dict[str, Callable[[psycopg.Connection[Any]], None]] = {
    "asleep": _asleep,
    "loop": _loop,
    "query": _query,
    "plain query": _plain_query,
    "busy": _busy,
    "swallowed": _swallowed,
}


def commits_what_is_gone(_arg: Any) -> None:
    """Leaves a transaction whose connection has ended meanwhile, unnoticed by the author."""
    connection = worker.connect()
    with spi.transaction():
        spi.execute("SELECT 1")
        say(connection.info.backend_pid)
        while not connection.closed:
            connection.look()  # type: ignore[attr-defined]
    say("not reached")


def closes_itself(_arg: Any) -> None:
    connection = worker.connect()
    connection.close()
    say(worker.wait_latch(timeout=0.05))
    worker.check_for_interrupts()


async def lose_async(how: str) -> None:
    connection = await aio.connect_database()
    async with aio.transaction():
        await aio.execute("CREATE TABLE IF NOT EXISTS losses (mark text)")
    say(connection.info.backend_pid)
    with told(how):
        match how:
            case "asleep":
                await aio.wait_latch(wait_event="Idle")
            case "loop":
                async for _ in aio.latch_loop(wait_event="Idle"):
                    pass
            case "query":
                async with aio.transaction():
                    await aio.execute("INSERT INTO losses VALUES ('torn')")
                    await aio.execute("SELECT pg_sleep(600)")
            case "plain query":
                await connection.execute("SELECT pg_sleep(600)")
            case "elsewhere":
                current().activity.wait_event("Idle")
                import asyncio

                await asyncio.get_running_loop().create_future()


async def closes_itself_async(_arg: Any) -> None:
    connection = await aio.connect_database()
    await connection.close()
    say(await aio.wait_latch(timeout=0.05))
    aio.check_for_interrupts()


def _listen_ways(connection: psycopg.Connection[Any]) -> dict[str, Callable[[], Any]]:
    def copy() -> None:
        with connection.cursor().copy("LISTEN orders"):
            pass

    def pipeline() -> None:
        with connection.pipeline():
            connection.execute("SELECT 1")
            connection.execute("LISTEN orders")

    def own_cursor() -> None:
        connection.cursor_factory = psycopg.ClientCursor
        connection.execute("LISTEN orders")

    return {
        "spi": lambda: spi.execute("LISTEN orders"),
        "executemany": lambda: connection.cursor().executemany("LISTEN orders", [(), ()]),
        "executemany returning": lambda: connection.cursor().executemany("LISTEN orders", [(), ()], returning=True),
        "statements": lambda: connection.execute("SELECT 1; LISTEN orders; SELECT 2"),
        "prepared": lambda: connection.execute("LISTEN orders", prepare=True),
        "pipeline": pipeline,
        "copy": copy,
        "stream": lambda: list(connection.cursor().stream("LISTEN orders")),
        "own cursor": own_cursor,
    }


def listen_ways(how: str) -> None:
    connection = worker.connect()
    try:
        if how == "spi":
            with spi.transaction():
                _listen_ways(connection)[how]()
        else:
            _listen_ways(connection)[how]()
    except (worker.UsageError, psycopg.ProgrammingError) as error:
        say(f"{type(error).__name__}: {error}")
    with connection.cursor() as cursor:
        say(cursor.execute("SELECT count(*) FROM pg_listening_channels()").fetchone())


async def listen_ways_async(how: str) -> None:
    connection = await aio.connect_database()
    try:
        match how:
            case "spi":
                async with aio.transaction():
                    await aio.execute("LISTEN orders")
            case "executemany":
                await connection.cursor().executemany("LISTEN orders", [(), ()])
            case "executemany returning":
                await connection.cursor().executemany("LISTEN orders", [(), ()], returning=True)
            case "statements":
                await connection.execute("SELECT 1; LISTEN orders; SELECT 2")
            case "prepared":
                await connection.execute("LISTEN orders", prepare=True)
            case "pipeline":
                async with connection.pipeline():
                    await connection.execute("SELECT 1")
                    await connection.execute("LISTEN orders")
            case "copy":
                async with connection.cursor().copy("LISTEN orders"):
                    pass
            case "stream":
                rows: AsyncIterator[Any] = connection.cursor().stream("LISTEN orders")
                say([row async for row in rows])
            case "own cursor":
                connection.cursor_factory = psycopg.AsyncClientCursor
                await connection.execute("LISTEN orders")
    except (worker.UsageError, psycopg.ProgrammingError) as error:
        say(f"{type(error).__name__}: {error}")
    say(await (await connection.execute("SELECT count(*) FROM pg_listening_channels()")).fetchone())


def hides_listen(_arg: Any) -> None:
    connection = worker.connect()
    connection.execute("DO $$ BEGIN EXECUTE 'LISTEN hidden'; END $$")
    say("ready")
    worker.wait_latch(wait_event="Idle")


async def hides_listen_async(_arg: Any) -> None:
    connection = await aio.connect_database()
    await connection.execute("DO $$ BEGIN EXECUTE 'LISTEN hidden'; END $$")
    say("ready")
    await aio.wait_latch(wait_event="Idle")


async def streams_slowly(_arg: Any) -> None:
    """Holds a half-read result while it sleeps; the socket has more to read all the while."""
    import asyncio

    connection = await aio.connect_database()
    rows = connection.cursor().stream("SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
    await anext(rows)
    say("half-read")
    current().activity.wait_event("Half")
    await asyncio.sleep(600)


async def sleeps_after_query(_arg: Any) -> None:
    connection = await aio.connect_database()
    await connection.execute("SELECT 1")
    say("ready")
    await aio.wait_latch(wait_event="Idle")
