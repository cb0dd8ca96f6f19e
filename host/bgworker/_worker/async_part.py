"""What an async worker adds to its event loop: the latch, the channel and the lifeline as readers of it.

No thread and no periodic wake-up. Signal handlers do in an async worker what they do
elsewhere, raise a flag and write into the latch's pipe; the reader of that pipe, an ordinary
callback, cancels the main task. Nothing is raised out of a handler, because the event loop
would take it for a failure of its own.
"""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NoReturn

from bgworker._worker.refusals import UsageError
from bgworker._worker.wait import (
    WL_EXIT_ON_PM_DEATH,
    WL_LATCH_SET,
    WL_POSTMASTER_DEATH,
    WL_SOCKET_READABLE,
    WL_SOCKET_WRITEABLE,
    WL_TIMEOUT,
    deadline_of,
    effective_events,
)
from bgworker.errors import WaitTimeout

if TYPE_CHECKING:
    from bgworker._shm.layout import SlotRecord
    from bgworker._worker.runtime import Runtime

#: The transaction that the running task, or the task that started it, is inside of.
open_transaction: ContextVar[object | None] = ContextVar("open_transaction", default=None)
#: For SIGINT: how long the request to cancel a query may take.
_CANCEL_TIMEOUT: Final = 2.0


class AsyncPart:
    """The event loop's side of one async worker.

    Args:
        runtime: The worker.
        loop: Its event loop.
    """

    def __init__(self, runtime: Runtime, loop: asyncio.AbstractEventLoop) -> None:
        self.runtime = runtime
        self.main_task: asyncio.Task[Any] | None = None
        #: One transaction at a time on the one connection; other tasks queue here.
        self.transaction_lock = asyncio.Lock()
        self._loop = loop
        self._waiters: set[asyncio.Future[None]] = set()
        self._death_watchers = 0
        self._is_host_dead = False
        self._is_main_cancelled = False
        self._canceller: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Watch the descriptors."""
        runtime = self.runtime
        runtime.latch.arm()
        self._loop.add_reader(runtime.latch.read_fd, self._on_wake)
        if runtime.lifeline_fd >= 0:
            self._loop.add_reader(runtime.lifeline_fd, self._on_host_death)
        if (fd := runtime.channel.fileno()) >= 0:
            self._loop.add_reader(fd, self._on_channel, fd)
        runtime.watchdog.beat(self._loop)

    def stop(self) -> None:
        """Watch them no longer."""
        self.runtime.watchdog.stop_beating()
        if self.runtime.async_connection is not None:
            self.runtime.async_connection.stop_watching()
        for fd in (self.runtime.latch.read_fd, self.runtime.lifeline_fd, self.runtime.channel.fileno()):
            if fd >= 0:
                self._loop.remove_reader(fd)
                self._loop.remove_writer(fd)

    # -- what readiness means --------------------------------------------------------------------------------------------

    def _on_wake(self) -> None:
        runtime = self.runtime
        runtime.latch.drain()
        interrupts = runtime.interrupts
        if interrupts.is_due and self.main_task is not None and not self._is_main_cancelled:
            # Once: a main task that goes on after it is cleaning up, and gets Terminated at its next wait of ours.
            self._is_main_cancelled = True
            self.main_task.cancel()
        if interrupts.is_cancel_pending and interrupts.running_queries and self._canceller is None:
            self._canceller = self._loop.create_task(self._cancel_query())
        if runtime.latch.is_set:
            self._wake_waiters()

    def deliver(self) -> NoReturn:
        """Raise Terminated in the running task; the main task, if it is this one, is not cancelled on top of it."""
        if asyncio.current_task() is self.main_task:
            self._is_main_cancelled = True
        self.runtime.interrupts.deliver()

    def _on_channel(self, fd: int) -> None:
        # What is pushed sets the latch, whose pipe then wakes the waiters.
        self.runtime.channel.receive()
        if self.runtime.channel.fileno() < 0:
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)

    def _on_host_death(self) -> None:
        if not self._death_watchers:
            self.runtime.exit_on_host_death()
        self._is_host_dead = True
        self._loop.remove_reader(self.runtime.lifeline_fd)
        self._wake_waiters()

    def _wake_waiters(self) -> None:
        for future in self._waiters:
            if not future.done():
                future.set_result(None)

    async def _cancel_query(self) -> None:
        """SIGINT: cancel the running query; its task gets QueryCanceled."""
        self.runtime.interrupts.is_cancel_pending = False
        try:
            if self.runtime.async_connection is not None:
                await self.runtime.async_connection._try_cancel(timeout=_CANCEL_TIMEOUT)
        finally:
            self._canceller = None

    # -- what the faces wait for -----------------------------------------------------------------------------------------

    async def wait_latch(self, timeout: float | None, events: int | None, socket: Any, wait_event: str) -> int:
        """Wait as ``bgworker.aio.wait_latch`` promises; return the events that happened."""
        runtime = self.runtime
        wanted = effective_events(events, socket)
        if runtime.async_connection is not None:
            runtime.async_connection.watch_idle()
        runtime.interrupts.check()
        if open_transaction.get() is not None:
            raise UsageError(
                "wait_latch() cannot be used inside a transaction",
                "The transaction would hold its locks and its snapshot while the worker sleeps.",
                "End the transaction first; a worker sleeps between two transactions.",
            )
        wait = _AsyncWait(self, wanted, socket)
        runtime.activity.wait_event(wait_event)
        watches_death = bool(wanted & WL_POSTMASTER_DEATH) and not wanted & WL_EXIT_ON_PM_DEATH
        self._death_watchers += watches_death
        try:
            found = await wait.run(deadline_of(wanted, timeout))
        finally:
            self._death_watchers -= watches_death
            runtime.activity.wait_event("")
        runtime.interrupts.check()
        return found

    async def request(self, method: str, params: dict[str, Any] | None = None, timeout: float | None = None) -> dict[str, Any]:
        """Ask the host and wait for its answer without blocking the loop; errors as ``Channel.request``."""
        channel = self.runtime.channel
        answered = self._loop.create_future()

        def settle() -> None:
            if not answered.done():
                answered.set_result(None)

        def notify() -> None:
            self._loop.call_soon_threadsafe(settle)  # another thread may be the one that reads the reply

        reply = channel.begin(method, params, notify)
        self._send_rest()
        try:
            async with asyncio.timeout(timeout):
                await answered
        except TimeoutError:
            raise WaitTimeout(
                "timed out waiting for an answer of the host", "The worker goes on, and so does what was asked for."
            ) from None
        finally:
            channel.abandon(reply)
        return reply.result()

    def read_slot(self, slotno: int) -> SlotRecord:
        """Return a slot's record, for handles."""
        return self.runtime.channel.read_slot(slotno)

    def is_host_alive(self) -> bool:
        """Whether the host lives, for handles."""
        return self.runtime.channel.is_host_alive()

    def _send_rest(self) -> None:
        channel = self.runtime.channel
        fd = channel.fileno()
        if channel.flush():
            self._loop.add_writer(fd, self._send_rest)
        elif fd >= 0:
            self._loop.remove_writer(fd)

    def add_waiter(self, future: asyncio.Future[None]) -> None:
        """Resolve the future when the latch is set or the host has died."""
        self._waiters.add(future)

    def remove_waiter(self, future: asyncio.Future[None]) -> None:
        """Take it back."""
        self._waiters.discard(future)

    @property
    def is_host_dead(self) -> bool:
        """Whether the lifeline has ended while somebody watched for it."""
        return self._is_host_dead


class _AsyncWait:
    """One wait of one task."""

    def __init__(self, part: AsyncPart, events: int, socket: Any) -> None:
        self._part = part
        self._events = events
        self._socket_fd = -1 if socket is None else socket if isinstance(socket, int) else socket.fileno()
        self._found = 0
        self._loop = asyncio.get_running_loop()

    async def run(self, deadline: float | None) -> int:
        # Also when there is nothing to wait for: a latch that is always set must not starve the other tasks, nor SIGTERM.
        await asyncio.sleep(0)
        if self._socket_fd >= 0:
            self._watch_socket()
        try:
            while not (found := self._happened()):
                if deadline is not None and deadline - time.monotonic() <= 0:
                    return WL_TIMEOUT
                await self._sleep(deadline)
            return found
        finally:
            if self._socket_fd >= 0:
                self._loop.remove_reader(self._socket_fd)
                self._loop.remove_writer(self._socket_fd)

    def _happened(self) -> int:
        found = self._found
        if self._part.runtime.latch.is_set:
            found |= self._events & WL_LATCH_SET
        if self._part.is_host_dead:
            found |= self._events & WL_POSTMASTER_DEATH
        return found

    async def _sleep(self, deadline: float | None) -> None:
        self._future: asyncio.Future[None] = self._loop.create_future()
        if self._events & (WL_LATCH_SET | WL_POSTMASTER_DEATH):
            self._part.add_waiter(self._future)
        timer = None
        if deadline is not None:
            timer = self._loop.call_later(deadline - time.monotonic(), self._resolve)
        try:
            await self._future
        finally:
            self._part.remove_waiter(self._future)
            if timer is not None:
                timer.cancel()

    def _watch_socket(self) -> None:
        if self._events & WL_SOCKET_READABLE:
            self._loop.add_reader(self._socket_fd, self._on_socket, WL_SOCKET_READABLE)
        if self._events & WL_SOCKET_WRITEABLE:
            self._loop.add_writer(self._socket_fd, self._on_socket, WL_SOCKET_WRITEABLE)

    def _on_socket(self, event: int) -> None:
        self._found |= event
        self._resolve()

    def _resolve(self) -> None:
        if not self._future.done():
            self._future.set_result(None)
