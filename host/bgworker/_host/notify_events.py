"""Notifications as events, for subscribers that ask for them: the live view above all.

What woke a worker is worth a line to whoever watches; a flood is not. So many a second are
told, made inert and short, and the next one that is told says how many were not. Without a
subscriber nothing is done. Imported by the composition root alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from bgworker._host.callers import Callers
from bgworker._spec import printable

#: Events told in one second.
MAX_PER_SECOND: Final = 20
#: Characters of channel and payload that are told.
MAX_SHOWN: Final = 120


class NotifyEvents:
    """Tells of notifications.

    Args:
        callers: Some of them have asked.
        clock: Monotonic seconds.
    """

    def __init__(self, callers: Callers, clock: Callable[[], float] = time.monotonic) -> None:
        self._callers = callers
        self._clock = clock
        self._second = -1
        self._told = 0
        self._untold = 0

    def heard(self, database: str, channel: str, payload: str) -> None:
        """Tell of one notification, or count it."""
        if not self._callers.overhearing:
            return
        second = int(self._clock())
        if second != self._second:
            self._second, self._told = second, 0
        if self._told >= MAX_PER_SECOND:
            self._untold += 1
            return
        self._told += 1
        untold, self._untold = self._untold, 0
        shown, channel = _shown(payload), _shown(channel)
        message = f"notify {channel}: {shown}" if shown else f"notify {channel}"
        if untold:
            message += f" ({untold} more before it)"
        self._callers.broadcast_overheard(
            {
                "event": "notify",
                "at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "database": database,
                "channel": channel,
                "payload": shown,
                "untold": untold,
                "message": message,
            }
        )


def _shown(text: str) -> str:
    cut = printable(text[: MAX_SHOWN + 1])
    return cut if len(cut) <= MAX_SHOWN else f"{cut[: MAX_SHOWN - 1]}…"
