"""One connection used by any number of tasks of one event loop.

The twin of ``shared_connection``, waiting in the loop's way. The socket is watched only while
somebody waits for something: an idle connection costs the loop nothing, and a stream of events
that nobody takes is not read.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from typing import Any

from bgworker._control.link import Link
from bgworker._control.protocol import Message
from bgworker._control.session import Call
from bgworker._control.transport import Attachment, Tables
from bgworker._shm.layout import SlotRecord
from bgworker.errors import HostError, WaitTimeout

__all__ = ["AsyncConnection", "attach_in_thread"]


async def attach_in_thread(make: Callable[[], Attachment]) -> Attachment:
    """Connect without holding up the loop; ``make`` runs in a thread, and a cancelled caller leaves no socket behind."""
    # Reading workers.toml and connecting to a full backlog may block, and asyncio takes
    # EAGAIN from a UNIX socket for "in progress", which it is not.
    attempt = asyncio.get_running_loop().run_in_executor(None, make)
    try:
        return await asyncio.shield(attempt)
    except asyncio.CancelledError:
        attempt.add_done_callback(_discard)
        raise


def _discard(attempt: asyncio.Future[Attachment]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().socket.close()


class AsyncConnection:
    """A connection to the host for the tasks of one event loop."""

    def __init__(self, attachment: Attachment) -> None:
        self.data_directory = attachment.data_directory
        self.greeting = attachment.greeting
        self._tables: Tables | None = attachment.tables
        self._link = Link(attachment)
        self._loop = asyncio.get_running_loop()
        self._is_reading = False
        self._is_writing = False
        self._is_closed = False

    async def request(self, method: str, params: Message | None = None, timeout: float | None = None) -> dict[str, Any]:
        """Ask the host and wait for its answer; see ``SharedConnection.request``. May be cancelled at any time."""
        self.check_usable()
        return await self._outcome(self._link.ask(method, params or {}), timeout)

    async def next_notice(self, timeout: float | None = None) -> Message:
        """Wait for the next notice; see ``SharedConnection.next_notice``."""
        self.check_usable()
        call = self._link.session.expect_notice()
        self._receive()  # a timeout of 0 still takes what has arrived
        return await self._outcome(call, timeout)

    async def wait_until_gone(self, timeout: float | None = None) -> HostError:
        """Wait until the connection has ended and return how; see ``SharedConnection.wait_until_gone``."""
        self.check_usable()
        session = self._link.session
        if session.failure is None:
            call = session.expect_end()
            try:
                await self._outcome(call, timeout)
            except HostError:
                if not call.is_done:
                    raise
        assert session.failure is not None  # that is what was waited for
        return session.failure

    def read_slot(self, slotno: int) -> SlotRecord:
        """Return a slot's record from shared memory. May be stale when you read it."""
        return self.tables.read_slot(slotno)

    @property
    def tables(self) -> Tables:
        """Both shared tables."""
        if self._tables is None:
            raise _closed()
        return self._tables

    def check_usable(self) -> None:
        """Refuse what could be done without this connection, but not in its name.

        Raises:
            HostError: The connection was closed, inherited through fork, or belongs to another event loop.
        """
        self._link.check_process()
        if self._is_closed:
            raise _closed()
        if asyncio.get_running_loop() is not self._loop:
            raise HostError(
                "connection to the host belongs to another event loop",
                "It can be used only in the loop in which it was made.",
                "Call bgworker.aio.connect() in this loop.",
            )

    def is_host_alive(self) -> bool:
        """Whether the host lives; one system call, no waiting."""
        if not self._link.is_hung_up():
            return True
        self._link.check_process()
        if self._is_closed:
            raise _closed()
        return False

    def close(self) -> None:
        """End the connection; tasks that wait on it get an error."""
        if self._is_closed:
            return
        self._is_closed = True
        self._tables = None
        if self._link.is_inherited():
            return  # the socket is closed already, and the loop is the parent's
        self._end(self._link.session.fail(_closed()))
        if not self._loop.is_closed():
            self._watch()
        self._link.close()

    def __del__(self) -> None:
        if not getattr(self, "_is_closed", True):
            warnings.warn(f"unclosed connection to the host of {self.data_directory}", ResourceWarning, stacklevel=2, source=self)
            self._is_closed = True
            self._link.close()  # nobody waits, so the loop does not watch it

    # -- inside ----------------------------------------------------------------------------------------------------------

    async def _outcome(self, call: Call, timeout: float | None) -> Message:
        if not call.is_done:
            call.waiter = self._loop.create_future()
            self._watch()
            try:
                async with asyncio.timeout(timeout):
                    await call.waiter
            except TimeoutError:
                raise WaitTimeout(
                    f'host did not answer "{call.method}" in time',
                    "The request was made, and the host may still carry it out.",
                ) from None
            finally:
                if not call.is_done:
                    self._link.session.abandon(call)
                if not self._is_closed:
                    self._watch()
        return call.outcome()

    def _receive(self) -> None:
        if self._link.session.failure is None:
            self._end(self._link.receive())

    def _on_readable(self) -> None:
        self._receive()
        self._watch()

    def _on_writable(self) -> None:
        self._link.send()
        self._watch()

    @staticmethod
    def _end(calls: list[Call]) -> None:
        for call in calls:
            if call.waiter is not None and not call.waiter.done():
                call.waiter.set_result(None)

    def _watch(self) -> None:
        """Make the loop watch for exactly what is of use now."""
        should_read = self._link.session.is_awaited
        if should_read != self._is_reading:
            self._is_reading = should_read
            if should_read:
                self._loop.add_reader(self._link.fileno(), self._on_readable)
            else:
                self._loop.remove_reader(self._link.fileno())
        should_write = self._link.has_unsent and not self._is_closed
        if should_write != self._is_writing:
            self._is_writing = should_write
            if should_write:
                self._loop.add_writer(self._link.fileno(), self._on_writable)
            else:
                self._loop.remove_writer(self._link.fileno())


def _closed() -> HostError:
    return HostError("connection to the host is closed", "This client closed it.")
