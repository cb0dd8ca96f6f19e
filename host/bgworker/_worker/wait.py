"""The blocking wait on the latch: descriptors only, no periodic wake-up.

Besides what the caller asked for, every wait watches the lifeline, the channel (so that what
the host pushes sets the latch) and the database connection (so that a notification that must
not be there is found, and a closed one does not fill up).
"""

from __future__ import annotations

import math
import select
import time
from typing import TYPE_CHECKING, Any, Final

from bgworker._worker.refusals import UsageError, refuse_in_event_loop, refuse_outside_main_thread

if TYPE_CHECKING:
    from bgworker._worker.runtime import Runtime

# The values of waiteventset.h (PostgreSQL 18).
#: The latch is set.
WL_LATCH_SET: Final = 1 << 0
#: The socket can be read from without blocking, or has failed.
WL_SOCKET_READABLE: Final = 1 << 1
#: The socket can be written to without blocking, or has failed.
WL_SOCKET_WRITEABLE: Final = 1 << 2
#: The timeout has passed.
WL_TIMEOUT: Final = 1 << 3
#: The host has died; the wait returns and the caller decides.
WL_POSTMASTER_DEATH: Final = 1 << 4
#: When the host has died, the process exits at once and the wait does not return.
WL_EXIT_ON_PM_DEATH: Final = 1 << 5

#: What a wait waits for unless told otherwise.
DEFAULT_EVENTS: Final = WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH
ALL_EVENTS: Final = (1 << 6) - 1
_SOCKET_EVENTS: Final = WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE

#: poll() counts milliseconds in 32 bits; a longer wait is several.
LONGEST_POLL: Final = 2_000_000.0


def effective_events(events: int | None, socket: Any) -> int:
    """Return the events to wait for, the defaults filled in.

    Raises:
        UsageError: The events and the socket do not go together.
    """
    if events is None:
        return DEFAULT_EVENTS | (WL_SOCKET_READABLE if socket is not None else 0)
    if events & ~ALL_EVENTS:
        raise UsageError("wait_latch() was given events that do not exist", f"The value is {events:#x}.")
    if bool(events & _SOCKET_EVENTS) != (socket is not None):
        raise UsageError(
            "wait_latch() needs a socket for WL_SOCKET events, and WL_SOCKET events for a socket",
            message_hint="Give both, or neither; without events= a socket is waited for to become readable.",
        )
    return events


def deadline_of(events: int, timeout: float | None) -> float | None:
    """Return the monotonic time at which the wait is over; None for never. A timeout below 0 counts as 0."""
    if timeout is None or not events & WL_TIMEOUT or timeout == math.inf:
        return None
    return time.monotonic() + max(timeout, 0.0)


def refuse_in_transaction(runtime: Runtime, name: str) -> None:
    """Refuse to sleep while a transaction is open: it would hold its locks and its snapshot for as long.

    Raises:
        UsageError: A transaction is open on the worker's connection.
    """
    if runtime.transaction is not None or (runtime.connection is not None and runtime.connection.is_in_transaction):
        raise UsageError(
            f"{name} cannot be used inside a transaction",
            "The transaction would hold its locks and its snapshot while the worker sleeps.",
            "End the transaction first; a worker sleeps between two transactions.",
        )


def wait_latch(runtime: Runtime, timeout: float | None, events: int | None, socket: Any, wait_event: str) -> int:
    """Wait as ``bgworker.worker.wait_latch`` promises; return the events that happened."""
    refuse_in_event_loop("wait_latch()", "bgworker.aio.wait_latch()")
    refuse_outside_main_thread("wait_latch()")
    wanted = effective_events(events, socket)
    interrupts = runtime.interrupts
    interrupts.deferred += 1
    try:
        refuse_in_transaction(runtime, "wait_latch()")
        runtime.latch.arm()
        runtime.watchdog.moves()
        runtime.activity.wait_event(wait_event)
        try:
            found = _Wait(runtime, wanted, socket).run(deadline_of(wanted, timeout))
        finally:
            runtime.activity.wait_event("")
            runtime.watchdog.wait_ends()
    finally:
        interrupts.deferred -= 1
    interrupts.check()
    return found


class _Wait:
    """One wait: what is watched, and what each readiness means."""

    def __init__(self, runtime: Runtime, events: int, socket: Any) -> None:
        self._runtime = runtime
        self._events = events
        self._poller = select.poll()
        self._poller.register(runtime.latch.read_fd, select.POLLIN)
        self._lifeline_fd = runtime.lifeline_fd
        if self._lifeline_fd >= 0:
            self._poller.register(self._lifeline_fd, select.POLLIN)
        self._channel_fd = runtime.channel.fileno()
        if self._channel_fd >= 0:
            self._poller.register(self._channel_fd, select.POLLIN)
        self._socket_fd = -1
        if socket is not None:
            self._socket_fd = socket if isinstance(socket, int) else socket.fileno()
            wanted = (select.POLLIN if events & WL_SOCKET_READABLE else 0) | (select.POLLOUT if events & WL_SOCKET_WRITEABLE else 0)
            self._poller.register(self._socket_fd, wanted)
        connection = runtime.connection
        self._database_fd = connection.idle_fd() if connection is not None else -1
        # A worker may wait for its own connection's socket itself; then what arrives is its to read.
        if self._database_fd >= 0 and self._database_fd != self._socket_fd:
            self._poller.register(self._database_fd, select.POLLIN)

    def run(self, deadline: float | None) -> int:
        """Sleep until something wanted has happened."""
        latch, watchdog = self._runtime.latch, self._runtime.watchdog
        while True:
            self._runtime.interrupts.check()
            found = WL_LATCH_SET if latch.is_set and self._events & WL_LATCH_SET else 0
            remaining = 0.0 if found else None if deadline is None else max(deadline - time.monotonic(), 0.0)
            until_idle = watchdog.until_idle()
            if until_idle is not None:
                remaining = until_idle if remaining is None else min(remaining, until_idle)
            # A set latch still looks at the rest: a worker that is always busy must notice the host's death.
            for fd, bits in self._poller.poll(None if remaining is None else min(remaining, LONGEST_POLL) * 1000):
                found |= self._ready(fd, bits)
            watchdog.waits()
            if latch.is_set and self._events & WL_LATCH_SET:
                found |= WL_LATCH_SET
            if found:
                self._runtime.interrupts.check()
                return found
            if deadline is not None and time.monotonic() >= deadline:
                self._runtime.interrupts.check()
                return WL_TIMEOUT

    def _ready(self, fd: int, bits: int) -> int:
        runtime = self._runtime
        if fd == runtime.latch.read_fd:
            runtime.latch.drain()
        elif fd == self._lifeline_fd:
            if not self._events & WL_POSTMASTER_DEATH or self._events & WL_EXIT_ON_PM_DEATH:
                runtime.exit_on_host_death()
            return WL_POSTMASTER_DEATH
        elif fd == self._socket_fd:
            return self._socket_ready(bits)
        elif fd == self._channel_fd:
            runtime.channel.receive()
            if runtime.channel.fileno() < 0:
                self._poller.unregister(fd)  # at its end; what the lifeline says decides
        elif runtime.connection is not None and not runtime.connection.look():
            self._poller.unregister(fd)
        return 0

    def _socket_ready(self, bits: int) -> int:
        # As in PostgreSQL, a failed socket is reported as whatever was asked for, so that the next read or write tells.
        failed = bits & (select.POLLERR | select.POLLHUP | select.POLLNVAL)
        found = WL_SOCKET_READABLE if bits & select.POLLIN or failed else 0
        found |= WL_SOCKET_WRITEABLE if bits & select.POLLOUT or failed else 0
        return found & self._events
