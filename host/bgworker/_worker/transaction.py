"""``spi.transaction()``: one transaction on the worker's connection, safe against SIGTERM.

Inside it the signal handler raises nothing: a transaction must not be torn between two
statements that the author sees as one step. The next SPI call raises, and the transaction
rolls back. When there is no next call the work is complete: it is committed, and Terminated
is raised at the end of the block. COMMIT and ROLLBACK themselves are never cancelled.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Final

from bgworker._worker.refusals import UsageError

if TYPE_CHECKING:
    import psycopg

    from bgworker._worker.database import AsyncWorkerConnection, WorkerConnection
    from bgworker._worker.runtime import Runtime

#: libpq's PQTRANS_INERROR; psycopg's own name for it cannot be imported before the first connection.
_INERROR: Final = 3


def connection_of(runtime: Runtime) -> WorkerConnection:
    """Return the worker's connection.

    Raises:
        UsageError: It has none.
    """
    if runtime.connection is None:
        raise not_connected(runtime, "bgworker.worker.initialize_connection()")
    return runtime.connection


def not_connected(runtime: Runtime, remedy: str) -> UsageError:
    """Return the error of a worker that has no connection."""
    hint = f"Call {remedy} first."
    if not runtime.worker.is_database_worker:
        hint = "Register the worker with BGWORKER_BACKEND_DATABASE_CONNECTION in its bgw_flags, then call " + remedy + " first."
    return UsageError(f'background worker "{runtime.worker.bgw_name}" has no database connection', message_hint=hint)


def no_transaction(name: str) -> UsageError:
    """Return the error of an SPI call outside of a transaction."""
    return UsageError(
        f"{name} was called outside of a transaction",
        "As in SPI, queries and notifications belong to a transaction.",
        "Put the call inside a transaction() block.",
    )


def refuse_nesting(runtime: Runtime, connection: WorkerConnection) -> None:
    """Refuse a transaction inside another.

    Raises:
        UsageError: One is open.
    """
    if runtime.transaction is not None or connection.is_in_transaction:
        raise UsageError(
            "transaction() cannot be nested",
            "A transaction is open on the worker's connection already.",
            "Use the transaction() of the psycopg connection inside the block: it makes a savepoint.",
        )


def swallowed_failure(connection: WorkerConnection | AsyncWorkerConnection) -> Exception | None:
    """Return the error of a block that ends as if all were well, though a statement in it has failed.

    The server would answer its COMMIT with ROLLBACK and no error, and the work would be gone without a word.
    """
    if connection.is_lost:  # psycopg ends such a block without a word
        from psycopg import errors

        return errors.OperationalError("the transaction was not committed: the connection was lost")
    if connection.pgconn.transaction_status != _INERROR:
        return None
    from psycopg import errors

    return errors.InFailedSqlTransaction("the transaction was rolled back: a statement in it failed, and its error was swallowed")


class Transaction:
    """The block of ``spi.transaction()``."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._block: AbstractContextManager[psycopg.Transaction] | None = None

    def __enter__(self) -> psycopg.Transaction:
        runtime = self._runtime
        connection = connection_of(runtime)
        runtime.interrupts.check()
        refuse_nesting(runtime, connection)
        runtime.interrupts.deferred += 1
        try:
            self._block = connection.transaction()
            entered = self._block.__enter__()
        except BaseException:
            runtime.interrupts.deferred -= 1
            raise
        runtime.transaction = self
        return entered

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._block is not None
        interrupts = self._runtime.interrupts
        interrupts.held += 1
        leaving = error
        try:
            if error is None and (failure := swallowed_failure(connection_of(self._runtime))) is not None:
                self._block.__exit__(type(failure), failure, None)
                raise failure
            is_swallowed = self._block.__exit__(exc_type, error, traceback)
            if is_swallowed:  # psycopg.Rollback
                leaving = None
            return is_swallowed
        except BaseException as raised:
            leaving = raised
            raise
        finally:
            self._runtime.transaction = None
            interrupts.held -= 1
            interrupts.deferred -= 1
            interrupts.resume(leaving)
