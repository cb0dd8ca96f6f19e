"""Async workers' functions of these tests."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from typing import Any

import psycopg

from bgworker import aio, spi, worker
from bgworker._spec import BackgroundWorker
from bgworker._worker.runtime import current


def say(text: object) -> None:
    sys.stdout.write(f"{text}\n")  # line-buffered by the runtime


def describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0]}"


async def arguments(arg: Any) -> str:
    say(arg)
    say(f"blocked {len(signal.pthread_sigmask(signal.SIG_BLOCK, ()))}")
    return "something"


def wrapped(arg: Any) -> Any:
    return arguments(arg)


async def end(how: str) -> None:
    await asyncio.sleep(0)
    match how:
        case "raise":
            raise ValueError("in a coroutine")
        case "exit":
            sys.exit(3)
        case "group":
            async with asyncio.TaskGroup() as group:
                group.create_task(end("raise"))
                group.create_task(asyncio.sleep(100))
        case "cancel":
            raise asyncio.CancelledError


async def until_cancelled(how: str) -> None:
    say("ready")
    match how:
        case "sleep":
            try:
                await asyncio.sleep(600)
            finally:
                say("cleaned up")
        case "latch":
            try:
                await aio.wait_latch()
            finally:
                say("cleaned up")
        case "loop":
            async for _ in aio.latch_loop():
                pass
        case "group":
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(aio.wait_latch())
                    group.create_task(asyncio.sleep(600))
            finally:
                say("cleaned up")
        case "swallow":
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                return
        case "fail":
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                raise ValueError("clean-up failed") from None
        case "thread":
            await asyncio.to_thread(time.sleep, 600)
        case "wait_after_swallow":
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                await aio.wait_latch()


async def always_set(_arg: Any) -> None:
    async def other() -> None:
        for _ in range(5):
            await asyncio.sleep(0.001)
        say("other task")

    task = asyncio.create_task(other())
    async for _ in aio.latch_loop():
        aio.set_latch()
    await task


async def reload_loop(_arg: Any) -> None:
    async def tick() -> None:
        while True:
            await asyncio.sleep(0.01)
            if current().channel._replies:
                say("ticking")

    task = asyncio.create_task(tick())
    async for bits in aio.latch_loop(timeout=lambda: aio.settings()["naptime"]):
        if aio.config_reload_pending():
            await aio.process_config_file()
        say(f"pass {bits} {aio.settings()}")
    await task


async def rally(rounds: int) -> None:
    say("ready")
    for _ in range(rounds):
        assert await aio.wait_latch(timeout=20) == worker.WL_LATCH_SET, "a wake-up was lost"
        aio.reset_latch()
        sys.stdout.buffer.write(b".")
        sys.stdout.buffer.flush()


async def waits(_arg: Any) -> None:
    ours, theirs = socket.socketpair()
    say(f"timeout {await aio.wait_latch(timeout=0.01)}")
    say(f"writeable {await aio.wait_latch(events=worker.WL_SOCKET_WRITEABLE, socket=ours)}")
    asyncio.get_running_loop().call_later(0.01, theirs.send, b"x")
    say(f"readable {await aio.wait_latch(socket=ours)}")
    asyncio.get_running_loop().call_later(0.01, aio.set_latch)
    say(f"both {await asyncio.gather(aio.wait_latch(), aio.wait_latch())}")
    try:
        await aio.wait_latch(events=worker.WL_SOCKET_READABLE)
    except worker.UsageError:
        say("UsageError")


async def watch_host(_arg: Any) -> None:
    say("ready")
    say(f"bits {await aio.wait_latch(events=worker.WL_LATCH_SET | worker.WL_POSTMASTER_DEATH)}")
    try:
        await aio.process_config_file()
    except Exception as error:
        say(type(error).__name__)


async def blocking_faces(_arg: Any) -> None:
    for face, *args in (
        (worker.wait_latch,),
        (worker.latch_loop,),
        (worker.process_config_file,),
        (worker.connect,),
        (worker.initialize_connection,),
        (worker.initialize_connection_by_oid, 1, 1),
        (worker.register_dynamic_background_worker, None),
        (spi.transaction,),
        (spi.execute, "SELECT 1"),
        (spi.async_notify, "orders"),
    ):
        try:
            face(*args)
        except worker.UsageError as error:
            say(error.message_hint)


def async_faces_in_blocking_worker(_arg: Any) -> None:
    for make in (aio.wait_latch, aio.latch_loop):
        try:
            made = make()
            made.send(None)  # type: ignore[union-attr]
        except worker.UsageError as error:
            say(error)


async def register(_arg: Any) -> None:
    handle = await aio.register_dynamic_background_worker(
        BackgroundWorker(bgw_name="child", bgw_library_name="x", bgw_function_name="y")
    )
    say(handle)
    say(await handle.wait_for_startup())
    say(aio.notifications())
    try:
        # The host's answer does not come; one second of grace is the client's.
        await handle.wait_for_shutdown(timeout=0)
    except TimeoutError as error:
        say(type(error).__name__)


async def held(_arg: Any) -> None:
    with aio.hold_interrupts():
        say("ready")
        await aio.wait_latch()
        await asyncio.sleep(0.01)
        say("held through")
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        say("cancelled after")
        raise


async def attempt(awaitable: Any) -> Any:
    try:
        return await awaitable
    except Exception as error:
        say(describe(error))
    return None


async def transactions(_arg: Any) -> None:
    await attempt(aio.transaction().__aenter__())
    connection = await aio.connect_database()
    row = await (
        await connection.execute(
            "SELECT current_database(), current_user, application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        )
    ).fetchone()
    say(f"{row} autocommit {connection.autocommit}")
    await attempt(aio.initialize_connection())
    await attempt(aio.execute("SELECT 1"))
    async with aio.transaction():
        await attempt(aio.transaction().__aenter__())
        await attempt(aio.wait_latch())

        async def child() -> None:
            say(f"child {await (await aio.execute('SELECT 1')).fetchone()}")

        await asyncio.create_task(child())
    order: list[str] = []

    async def one(name: str) -> None:
        async with aio.transaction():
            order.append(f"{name}1")
            await aio.execute("SELECT pg_sleep(0.02)")
            order.append(f"{name}2")

    await asyncio.gather(one("a"), one("b"))
    say(f"order {order}")
    await connection.execute("CREATE TEMPORARY TABLE t (n int)")
    try:
        async with aio.transaction():
            await aio.execute("INSERT INTO t VALUES (1)")
            try:
                await aio.execute("SELECT 1 / 0")
            except ArithmeticError:
                pass
            except Exception:
                pass
    except Exception as error:
        say(type(error).__name__)
    async with aio.transaction():
        row = await (await aio.execute("SELECT count(*) FROM t")).fetchone()
        say(f"rolled back {row[0] if row else None}")


async def query(how: str) -> None:
    connection = await aio.connect_database()
    say(connection.info.backend_pid)
    if how == "raw":
        await connection.execute("SELECT pg_sleep(600)")
    async with aio.transaction():
        await aio.execute("INSERT INTO amarks VALUES ('torn')")
        await aio.execute("SELECT pg_sleep(600)")


async def interrupted(_arg: Any) -> None:
    connection = await aio.connect_database()
    say(connection.info.backend_pid)
    try:
        async with aio.transaction():
            await aio.execute("SELECT pg_sleep(600)")
    except Exception as error:
        say(type(error).__name__)
    async with aio.transaction():
        say(await (await aio.execute("SELECT 1")).fetchone())


async def listen(_arg: Any) -> None:
    connection = await aio.connect_database()
    await attempt(connection.execute("LISTEN orders"))
    row = await (await connection.execute("SELECT count(*) FROM pg_listening_channels()")).fetchone()
    say(f"channels {row[0] if row else None}")
    await connection.execute("DO $$ BEGIN EXECUTE 'LISTEN orders'; END $$")
    say("hidden")
    while True:
        async with aio.transaction():
            await aio.execute("SELECT pg_sleep(0.01)")


async def session(arg: dict[str, Any]) -> None:
    """Connect as asked; say where and as whom, and what was refused, with its SQLSTATE."""
    try:
        connection = await getattr(aio, arg.pop("how", "initialize_connection"))(**arg)
        cursor = await connection.execute("SELECT current_database(), session_user, current_user")
        say(await cursor.fetchone())
        async with aio.transaction():
            await aio.execute("CREATE TABLE kept (n int)")
            say("written")
            await aio.execute("DROP TABLE kept")
    except psycopg.Error as error:
        say(f"{error.sqlstate} {error}")
        raise
