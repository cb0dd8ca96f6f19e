"""``aio.transaction()``: one transaction on the async worker's connection.

Tasks take turns: the connection is one, and a query of another task must not slip into this
task's transaction. Tasks started inside the block belong to it. COMMIT and ROLLBACK are not
cancelled by SIGTERM. NB: similar code in ``transaction``.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING

from bgworker._worker.async_part import AsyncPart, open_transaction
from bgworker._worker.refusals import UsageError
from bgworker._worker.transaction import not_connected, swallowed_failure

if TYPE_CHECKING:
    import psycopg

    from bgworker._worker.database import AsyncWorkerConnection
    from bgworker._worker.runtime import Runtime


def connection_of(runtime: Runtime) -> AsyncWorkerConnection:
    """Return the async worker's connection.

    Raises:
        UsageError: It has none.
    """
    if runtime.async_connection is None:
        raise not_connected(runtime, "await bgworker.aio.initialize_connection()")
    return runtime.async_connection


class AsyncTransaction:
    """The block of ``aio.transaction()``."""

    def __init__(self, part: AsyncPart) -> None:
        self._part = part
        self._block: AbstractAsyncContextManager[psycopg.AsyncTransaction] | None = None

    async def __aenter__(self) -> psycopg.AsyncTransaction:
        runtime = self._part.runtime
        connection = connection_of(runtime)
        runtime.interrupts.check()
        if open_transaction.get() is not None:
            raise UsageError(
                "transaction() cannot be nested",
                "This task, or the task that started it, is inside a transaction already.",
                "Use the transaction() of the psycopg connection inside the block: it makes a savepoint.",
            )
        await self._part.transaction_lock.acquire()
        try:
            self._block = connection.transaction()
            entered = await self._block.__aenter__()
        except BaseException:
            self._part.transaction_lock.release()
            raise
        open_transaction.set(self)
        return entered

    async def __aexit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._block is not None
        interrupts = self._part.runtime.interrupts
        interrupts.held += 1
        try:
            if error is None and (failure := swallowed_failure(connection_of(self._part.runtime))) is not None:
                await self._block.__aexit__(type(failure), failure, None)
                raise failure
            return await self._block.__aexit__(exc_type, error, traceback)
        finally:
            open_transaction.set(None)
            self._part.transaction_lock.release()
            interrupts.held -= 1
            interrupts.resume(error)
