"""The worker face to its database: transactions, queries and notifications on the one connection (C20, C26).

As in PostgreSQL's server programming interface, a query belongs to a transaction::

    with spi.transaction():
        row = spi.execute("SELECT count(*) FROM orders").fetchone()
        spi.async_notify("orders", "drained")

The connection is psycopg's own, in autocommit, and there is no SQL layer of ours: what
``execute()`` returns is a psycopg cursor. An async worker finds the twins in ``bgworker.aio``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bgworker._worker import transaction as _transaction
from bgworker._worker.refusals import refuse_in_event_loop, refuse_outside_main_thread
from bgworker._worker.runtime import current

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import psycopg
    from psycopg.abc import Params, Query

    from bgworker._worker.database import WorkerConnection

__all__ = ["async_notify", "connection", "execute", "transaction"]


def connection() -> psycopg.Connection[Any]:
    """Return the connection that ``initialize_connection()`` opened, for what psycopg can do and this face cannot.

    Raises:
        UsageError: The worker has not connected.
    """
    refuse_outside_main_thread("spi.connection()")
    return _transaction.connection_of(current())


def transaction() -> AbstractContextManager[psycopg.Transaction]:
    """Return a block that is one transaction: committed at its end, rolled back by an exception.

    SIGTERM does not tear it: nothing is raised between two statements but by the next call of
    this face, and the transaction then rolls back; a transaction that is complete is committed
    first. ``raise psycopg.Rollback`` rolls back and goes on after the block.

    Raises:
        UsageError: A transaction is open already; psycopg's own ``transaction()`` makes savepoints.
    """
    refuse_in_event_loop("spi.transaction()", "bgworker.aio.transaction()")
    refuse_outside_main_thread("spi.transaction()")
    return _transaction.Transaction(current())


def execute(
    query: Query, params: Params | None = None, *, prepare: bool | None = None, binary: bool = False
) -> psycopg.Cursor[Any]:
    """Run one query inside the transaction and return psycopg's cursor with its result.

    Args:
        query: As psycopg takes it, with ``%s`` or ``%(name)s`` for values.
        params: The values.
        prepare: Whether to prepare the statement; None leaves it to psycopg.
        binary: Whether the result comes in binary format.

    Raises:
        UsageError: Outside of a transaction, or the query was LISTEN (C27): see ``wake_on``.
        Terminated: The worker has been told to end.
        psycopg.Error: The server refused.
    """
    return _in_transaction("spi.execute()", "bgworker.aio.execute()").execute(query, params, prepare=prepare, binary=binary)  # type: ignore[arg-type]


def async_notify(channel: str, payload: str = "") -> None:
    """Notify the listeners of a channel when this transaction commits (Async_Notify, C26).

    In the order of commits, not at all on rollback, equal ones in a transaction once.

    Raises:
        UsageError: Outside of a transaction.
        psycopg.Error: The server refused, a payload of 8000 bytes or more for one.
    """
    _in_transaction("spi.async_notify()", "bgworker.aio.async_notify()").execute("SELECT pg_notify(%s, %s)", (channel, payload))


def _in_transaction(name: str, twin: str) -> WorkerConnection:
    refuse_in_event_loop(name, twin)
    refuse_outside_main_thread(name)
    runtime = current()
    runtime.interrupts.check()
    connected = _transaction.connection_of(runtime)
    if runtime.transaction is None and not connected.is_in_transaction:
        raise _transaction.no_transaction(name)
    return connected
