"""Notifications that the host passed on, until the worker asks for them (C27).

The host listens once per database for all ``wake_on`` channels. What it passes on sets the
latch and waits here, in order. The list is bounded: a worker that never asks must not grow,
so what does not fit becomes one note per channel that some were missed.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

#: What is kept: so many notifications, and so many characters of payload.
MAX_PENDING: Final = 10_000
MAX_PENDING_PAYLOAD: Final = 8_000_000


class Notification(NamedTuple):
    """One NOTIFY that woke the worker."""

    channel: str
    payload: str = ""
    #: Notifications on the channel may have been lost here (the listening connection broke, or too many were
    #: pending): read the state that they would have told of. The payload is then empty.
    may_have_missed: bool = False


class Pending:
    """The list behind ``notifications()``."""

    def __init__(self) -> None:
        self._notifications: deque[Notification] = deque()
        self._missed: dict[str, None] = {}
        self._payload_length = 0

    def add(self, channel: str, payload: str) -> None:
        """Keep one notification."""
        # Once something is missed, what comes later is, too: a note in the wrong place would promise too much.
        if not self._missed and len(self._notifications) < MAX_PENDING and self._payload_length < MAX_PENDING_PAYLOAD:
            self._payload_length += len(payload)
            self._notifications.append(Notification(channel, payload))
        else:
            self._missed[channel] = None

    def add_gap(self, channels: list[str]) -> None:
        """Keep the fact that some may have been missed, in its place in the order."""
        for channel in channels:
            note = Notification(channel, "", may_have_missed=True)
            # An unreachable database breaks the connection again and again; one note says it all.
            if note not in self._notifications:
                self._notifications.append(note)

    def take(self) -> list[Notification]:
        """Return what is pending, oldest first, and forget it."""
        taken: list[Notification] = []
        # popleft() one by one: a thread that waits for a reply may be adding at this moment.
        while self._notifications:
            taken.append(self._notifications.popleft())
        missed, self._missed = self._missed, {}
        self._payload_length = 0
        taken.extend(Notification(channel, "", may_have_missed=True) for channel in missed)
        return taken
