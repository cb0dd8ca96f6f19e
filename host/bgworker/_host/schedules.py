"""The times of workers' schedules, for the slot machine: the calendar by the wall clock, the deadlines by the monotonic one.

The host wakes at the time itself, and when somebody sets the wall clock: the kernel tells. As
long as no worker has a schedule there is neither a timer nor a descriptor. Where the kernel does
not tell, a clock that was set is noticed at the next time that was waited for.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from typing import Final

from bgworker import _cron
from bgworker._core.timetable import Run
from bgworker._loop import Loop
from bgworker._wall_clock import WallClock

#: Seconds after the time itself: the two clocks are read one after the other, and nobody is to be early, and so run twice.
_LATE: Final = 0.002


class Schedules:
    """The machine's timetable.

    Args:
        loop: The host's.
        clock_was_set: Called when the wall clock has leapt.
    """

    def __init__(self, loop: Loop, clock_was_set: Callable[[], None]) -> None:
        self._loop = loop
        self._clock_was_set = clock_was_set
        self._clock: WallClock | None = None
        self._is_watching = False

    def next_run(self, schedule: str, now: float) -> Run:
        """Return the first time of the schedule after now."""
        self._watch()
        wall = time.time()
        at = _cron.next_time(schedule, wall)
        return Run(now + max(at - wall, 0.0) + _LATE, _cron.shown(at), at)

    def has_come(self, run: Run) -> bool:
        """Whether the wall clock has passed the time of a run."""
        return time.time() >= run.wall

    def missed(self, schedule: str, since: float, now: float) -> int:
        """Return how many times have come since, by the wall clock as it stands now."""
        wall = time.time()
        return _cron.count_passed(schedule, wall - (now - since), wall)

    def _watch(self) -> None:
        if self._is_watching:
            return
        self._is_watching = True
        try:
            self._clock = WallClock()
        except OSError:
            return
        self._loop.add(self._clock, selectors.EVENT_READ, self._clock_ready)

    def _clock_ready(self, _events: int) -> None:
        assert self._clock is not None, "its descriptor was ready"
        if self._clock.was_set():
            # Armed first: a clock that is set again in this moment is told again.
            self._clock.wait_until(None)
            self._clock_was_set()

    def close(self) -> None:
        """Give the timer back."""
        if self._clock is not None:
            self._clock.close()
