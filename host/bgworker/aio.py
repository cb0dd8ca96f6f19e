"""The asyncio face: the client's twin for programs, and the worker's twins for ``async def`` workers.

``connect()`` is the client's (``bgworker.connect`` for asyncio). Everything else works in an
async worker only and is the twin of the function of the same name in ``bgworker.worker`` or
``bgworker.spi``; what does not wait is the same function. An async worker starts with its
signals unblocked; SIGTERM cancels its main task, and the exit code is 1 however it ends then.

An async worker::

    from bgworker import aio

    async def drain(main_arg):
        await aio.connect_database()
        async for _ in aio.latch_loop(timeout=10.0, wait_event="DrainMain"):
            async with aio.transaction():
                await aio.execute("DELETE FROM orders WHERE done")

Importing does no work and does not import asyncio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from bgworker._worker.notifications import Notification
from bgworker._worker.refusals import UsageError
from bgworker._worker.runtime import current
from bgworker.worker import (
    check_for_interrupts,
    config_reload_pending,
    hold_interrupts,
    my_bgworker_entry,
    notifications,
    progress,
    ready,
    report_activity,
    reset_latch,
    set_latch,
    settings,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    import psycopg
    from psycopg.abc import Params, Query

    from bgworker._control.aio_client import AsyncClient, connect
    from bgworker._handle import AsyncBackgroundWorkerHandle
    from bgworker._spec import BackgroundWorker
    from bgworker._worker.async_part import AsyncPart
    from bgworker._worker.at_times import Tick
    from bgworker._worker.database import AsyncWorkerConnection
    from bgworker._worker.latch_loop import Timeout
    from bgworker._worker.segment import Segment

__all__ = [
    "AsyncBackgroundWorkerHandle",
    "AsyncClient",
    "Notification",
    "Tick",
    "async_notify",
    "check_for_interrupts",
    "config_reload_pending",
    "connect",
    "connect_database",
    "connection",
    "execute",
    "hold_interrupts",
    "initialize_connection",
    "initialize_connection_by_oid",
    "latch_loop",
    "my_bgworker_entry",
    "notifications",
    "process_config_file",
    "progress",
    "ready",
    "register_dynamic_background_worker",
    "report_activity",
    "reset_latch",
    "set_latch",
    "settings",
    "shared_memory",
    "transaction",
    "wait_latch",
]

#: Imported at the first use: the client's half, which a worker has no need of, and what annotations name.
_LAZY = {
    "Tick": "bgworker._worker.at_times",
    "AsyncBackgroundWorkerHandle": "bgworker._handle",
    "AsyncClient": "bgworker._control.aio_client",
    "connect": "bgworker._control.aio_client",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


async def wait_latch(timeout: float | None = None, events: int | None = None, socket: Any = None, wait_event: str = "") -> int:
    """Sleep until something happens; see ``bgworker.worker.wait_latch``. Several tasks may wait at once.

    The death of the host ends the process, unless the wait asks for WL_POSTMASTER_DEATH.
    """
    return await _part("aio.wait_latch()", "bgworker.worker.wait_latch()").wait_latch(timeout, events, socket, wait_event)


@overload
def latch_loop(timeout: Timeout = None, wait_event: str = "") -> AsyncIterator[int]: ...
@overload
def latch_loop(*, at: str, wait_event: str = "") -> AsyncIterator[Tick]: ...
def latch_loop(timeout: Timeout = None, wait_event: str = "", *, at: str | None = None) -> AsyncIterator[int]:
    """Return the loop of an async worker: ``async for _ in aio.latch_loop(timeout=10.0)``; see ``bgworker.worker.latch_loop``."""
    part = _part("aio.latch_loop()", "bgworker.worker.latch_loop()")
    if at is not None:
        from bgworker._worker.at_times import AsyncTimesLoop, refuse_timeout

        refuse_timeout(timeout)
        return AsyncTimesLoop(part, at, wait_event)
    from bgworker._worker.latch_loop import AsyncLatchLoop

    return AsyncLatchLoop(part, timeout, wait_event)


async def process_config_file() -> None:
    """Take over the settings that the host has now; see ``bgworker.worker.process_config_file``."""
    part = _part("aio.process_config_file()", "bgworker.worker.process_config_file()")
    part.runtime.interrupts.is_reload_pending = False
    part.runtime.settings.replace((await part.request("settings")).get("settings", {}))


async def connect_database() -> psycopg.AsyncConnection[Any]:
    """Open the worker's connection to the configured database as the configured role, read-write.

    What ``bgworker.worker.connect()`` is to a blocking worker; ``connect()`` here is the client's.
    """
    from bgworker._worker import connection

    runtime = _part("aio.connect_database()", "bgworker.worker.connect()").runtime
    return await connection.connect_async(runtime, connection.plan(runtime, None, None, 0, read_write=True))


async def shared_memory(name: str, size: int | None = None, initialise: Callable[[Segment], object] | None = None) -> Segment:
    """Attach to a segment of memory that workers share; see ``bgworker.worker.shared_memory``.

    Its locks are taken with ``async with segment.lock(name):``.
    """
    from bgworker._worker import segment

    part = _part("aio.shared_memory()", "bgworker.worker.shared_memory()")
    runtime = part.runtime
    params = segment.request_of(runtime, name, size)
    if params is not None:
        answer = await part.request("attach_segment", params, segment.REPLY_TIMEOUT)
        # Another task may have been faster. This descriptor then stays open: closing one gives up the locks of all.
        if name not in runtime.segments:
            segment.take(runtime, answer)
    found = runtime.segments[name]
    await found.prepare_async(initialise, may_be_first=size is not None or initialise is not None)
    return found


async def initialize_connection(
    dbname: str | None = None, username: str | None = None, flags: int = 0
) -> psycopg.AsyncConnection[Any]:
    """Open the worker's one connection; see ``bgworker.worker.initialize_connection``."""
    from bgworker._worker import connection

    runtime = _part("aio.initialize_connection()", "bgworker.worker.initialize_connection()").runtime
    return await connection.connect_async(runtime, connection.plan(runtime, dbname, username, flags))


async def initialize_connection_by_oid(dboid: int = 0, useroid: int = 0, flags: int = 0) -> psycopg.AsyncConnection[Any]:
    """Open the worker's one connection, database and role given by oid."""
    from bgworker._worker import connection

    runtime = _part("aio.initialize_connection_by_oid()", "bgworker.worker.initialize_connection_by_oid()").runtime
    dbname, username = await connection.names_of_async(runtime, dboid, useroid)
    return await connection.connect_async(runtime, connection.plan(runtime, dbname, username, flags))


def connection() -> psycopg.AsyncConnection[Any]:
    """Return the connection that ``initialize_connection()`` opened; see ``bgworker.spi.connection``."""
    from bgworker._worker.async_transaction import connection_of

    return connection_of(_part("aio.connection()", "bgworker.spi.connection()").runtime)


def transaction() -> AbstractAsyncContextManager[psycopg.AsyncTransaction]:
    """Return a block that is one transaction; see ``bgworker.spi.transaction``.

    The worker has one connection: a task that asks while another is inside such a block waits
    its turn. Tasks started inside the block may use the transaction.
    """
    from bgworker._worker.async_transaction import AsyncTransaction

    return AsyncTransaction(_part("aio.transaction()", "bgworker.spi.transaction()"))


async def execute(
    query: Query, params: Params | None = None, *, prepare: bool | None = None, binary: bool = False
) -> psycopg.AsyncCursor[Any]:
    """Run one query inside the transaction and return psycopg's cursor; see ``bgworker.spi.execute``."""
    connected = _in_transaction("aio.execute()", "bgworker.spi.execute()")
    return await connected.execute(query, params, prepare=prepare, binary=binary)  # type: ignore[arg-type]


async def async_notify(channel: str, payload: str = "") -> None:
    """Notify the listeners of a channel when this transaction commits; see ``bgworker.spi.async_notify``."""
    connected = _in_transaction("aio.async_notify()", "bgworker.spi.async_notify()")
    await connected.execute("SELECT pg_notify(%s, %s)", (channel, payload))


async def register_dynamic_background_worker(worker: BackgroundWorker, if_absent: bool = False) -> AsyncBackgroundWorkerHandle:
    """Register another worker with the host; see ``bgworker.worker.register_dynamic_background_worker``."""
    from bgworker._control import operations
    from bgworker._handle import AsyncBackgroundWorkerHandle
    from bgworker._spec import sanity_check

    part = _part("aio.register_dynamic_background_worker()", "bgworker.worker.register_dynamic_background_worker()")
    sanity_check(worker, is_dynamic=True)
    operation = operations.register(worker, if_absent=if_absent)
    slotno, generation = operation.read(await part.request(operation.method, operation.params, operation.timeout))
    return AsyncBackgroundWorkerHandle._make(part, slotno, generation)


def _part(name: str, twin: str) -> AsyncPart:
    part = current().async_part
    if part is None:
        raise UsageError(
            f"{name} was called in a worker that is not async",
            "The worker's function is not an async def, so it has no event loop of the runtime's.",
            f"Use {twin}, or make the function an async def.",
        )
    return part


def _in_transaction(name: str, twin: str) -> AsyncWorkerConnection:
    from bgworker._worker.async_part import open_transaction
    from bgworker._worker.async_transaction import connection_of
    from bgworker._worker.transaction import no_transaction

    runtime = _part(name, twin).runtime
    runtime.interrupts.check()
    connected = connection_of(runtime)
    if open_transaction.get() is None:
        raise no_transaction(name)
    return connected
