"""The database process's own selector and timers: it sleeps in one system call until something is due.

psycopg's waiting functions wake ten times a second to look for Ctrl-C. A process that
waits for days must not, so every connection here is driven from this selector.
"""

from __future__ import annotations

import heapq
import itertools
import selectors
import time
from collections.abc import Callable
from typing import Final

READ: Final = selectors.EVENT_READ
WRITE: Final = selectors.EVENT_WRITE


class Timer:
    """One future call; harmless to cancel twice or after it has happened."""

    __slots__ = ("_callback",)

    def __init__(self, callback: Callable[[], object]) -> None:
        self._callback: Callable[[], object] | None = callback

    @property
    def is_cancelled(self) -> bool:
        """Whether the call will not happen (any more)."""
        return self._callback is None

    def cancel(self) -> None:
        """Forget the call."""
        self._callback = None

    def fire(self) -> None:
        """Make the call, once."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class Waits:
    """Descriptors and deadlines of one process, served one after another.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        # (deadline, order of creation, timer): the order makes equal deadlines comparable.
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._is_ended = False

    def watch(self, fd: int, events: int, ready: Callable[[int], None]) -> None:
        """Call ``ready`` with the events whenever the descriptor has some; replaces an earlier watch of it."""
        # Always anew: libpq closes a socket and opens another with the same number, which a
        # modify() would take for the old one, while the kernel has dropped it already.
        self.forget(fd)
        self._selector.register(fd, events, ready)

    def forget(self, fd: int) -> None:
        """Stop watching a descriptor; one that is not watched, or closed already, is fine."""
        try:
            self._selector.unregister(fd)
        except KeyError:
            pass

    def call_after(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call once, this many seconds from now."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (self._clock() + seconds, next(self._order), timer))
        return timer

    def next_deadline(self) -> float | None:
        """Return when the next timer is due; cancelled ones wake nobody."""
        while self._timers and self._timers[0][2].is_cancelled:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def turn(self) -> None:
        """Sleep until something is ready or due, and serve it."""
        deadline = self.next_deadline()
        timeout = None if deadline is None else max(0.0, deadline - self._clock())
        for key, events in self._selector.select(timeout):
            # An earlier callback of this turn may have forgotten it, or watches a new file under this number.
            if self._selector.get_map().get(key.fd) is key:
                key.data(events)
        now = self._clock()
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            heapq.heappop(self._timers)[2].fire()

    def run(self) -> None:
        """Take turns until ``end``."""
        while not self._is_ended:
            self.turn()

    def end(self) -> None:
        """Let ``run`` return after the current turn."""
        self._is_ended = True

    def close(self) -> None:
        """Release the selector."""
        self._selector.close()
