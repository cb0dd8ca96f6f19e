"""The host's loop: descriptors, deadlines, and one wake-up for every signal. Knows nothing of workers.

A signal handler here adds a number to a set and nothing more; logging or deciding in a
handler is how other hosts dead-lock. The C-level wake-up descriptor (signal.set_wakeup_fd)
ends the wait: its bytes are thrown away, because a full one drops bytes, and the set does not.
"""

from __future__ import annotations

import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

#: Called when the descriptor is ready, with the events of selectors.
Ready = Callable[[int], None]

#: epoll_wait(2) takes milliseconds in 31 bits, which is 24 days; a deadline beyond this is waited for in several turns.
_LONGEST_WAIT: Final = 86_400.0
#: How long a turn may serve descriptors before those with much to do are asked to go on in the next one, in seconds.
_TURN_BUDGET: Final = 0.01


class Loop:
    """Waits for descriptors and signals until a deadline, once per turn."""

    def __init__(self, signals: Iterable[int]) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_receiver, self._wake_sender = socket.socketpair()
        for end in (self._wake_receiver, self._wake_sender):
            end.setblocking(False)
        self._pending: set[int] = set()
        self._soon: deque[Callable[[], None]] = deque()
        self._before_waiting: deque[Callable[[], None]] = deque()
        self._turn_began = 0.0
        self.add(self._wake_receiver, selectors.EVENT_READ, self._drain_wake_ups)
        for signum in signals:
            signal.signal(signum, self._note_signal)
        signal.set_wakeup_fd(self._wake_sender.fileno(), warn_on_full_buffer=False)

    def add(self, source: Any, events: int, ready: Ready) -> None:
        """Call ``ready`` whenever the descriptor has one of these events."""
        self._selector.register(source, events, ready)

    def change(self, source: Any, events: int, ready: Ready) -> None:
        """Wait for other events on a descriptor that was added."""
        self._selector.modify(source, events, ready)

    def __contains__(self, fd: object) -> bool:
        """Whether a descriptor is waited on."""
        return fd in self._selector.get_map()

    def remove(self, source: Any) -> None:
        """Stop waiting on a descriptor; call it before the descriptor is closed."""
        self._selector.unregister(source)

    def soon(self, call: Callable[[], None]) -> None:
        """Call once in the next turn, which then does not wait; for work that was put off so that others get their turn."""
        self._soon.append(call)

    def before_waiting(self, call: Callable[[], None]) -> None:
        """Call once when this turn's work is done; for what nobody waits for while there is something that somebody does."""
        self._before_waiting.append(call)

    def settle(self) -> None:
        """Do what waits for the end of this turn's work; ``turn`` does so first, and whoever turns no more has to."""
        while self._before_waiting:
            self._before_waiting.popleft()()

    @property
    def is_late(self) -> bool:
        """Whether this turn has taken so long that what can be put off should be."""
        return time.monotonic() - self._turn_began > _TURN_BUDGET

    def note(self, signals: Iterable[int]) -> None:
        """Have these signals come with the next turn: they had come before this loop was made, or were put off."""
        self._pending |= set(signals)

    @property
    def pending(self) -> frozenset[int]:
        """The signals that have come since the last turn."""
        return frozenset(self._pending)

    def turn(self, deadline: float | None) -> set[int]:
        """Wait until something is ready or the deadline (monotonic) has passed, serve it, return the signals that came."""
        self.settle()
        put_off, self._soon = self._soon, deque()
        timeout = None if deadline is None else min(max(0.0, deadline - time.monotonic()), _LONGEST_WAIT)
        if put_off or self._pending:
            timeout = 0.0
        ready = self._selector.select(timeout)
        self._turn_began = time.monotonic()
        for key, events in ready:
            # A callback earlier in this turn may have removed and closed this one.
            if self._selector.get_map().get(key.fd) is key:
                key.data(events)
        for call in put_off:
            call()
        pending, self._pending = self._pending, set()
        return pending

    def _note_signal(self, signum: int, _frame: object) -> None:
        self._pending.add(signum)

    def _drain_wake_ups(self, _events: int) -> None:
        try:
            while self._wake_receiver.recv(4096):
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Give the wake-up descriptor back and close everything of the loop's own."""
        signal.set_wakeup_fd(-1)
        self._selector.close()
        self._wake_receiver.close()
        self._wake_sender.close()
