"""``latch_loop(at=...)``: a pass at each time of a cron expression, and whenever the latch is set.

Unlike the loop with a timeout it begins with a wait: what is to happen at three in the morning
is not to happen whenever the worker is started. No time is served twice, and none is made up
for: those that come during the pass of an earlier one are skipped, said in the log, and counted.
One that comes during a pass for the latch is served right after it.

It sleeps on a timer of the wall clock, which the kernel also ends when somebody sets that clock.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Final, Self

from bgworker import _cron
from bgworker._text import printable
from bgworker._wall_clock import WallClock
from bgworker._worker.latch_loop import warn_when_blocked
from bgworker._worker.log import say
from bgworker._worker.refusals import UsageError
from bgworker._worker.wait import DEFAULT_EVENTS, WL_LATCH_SET, WL_SOCKET_READABLE, WL_TIMEOUT, wait_latch

if TYPE_CHECKING:
    from bgworker._worker.async_part import AsyncPart
    from bgworker._worker.runtime import Runtime

#: A clock that goes back by less is as good as one that stands.
_STEP: Final = 1.0


def refuse_timeout(timeout: object) -> None:
    """Refuse a loop of both kinds.

    Raises:
        UsageError: There is a timeout.
    """
    if timeout is not None:
        raise UsageError(
            "latch_loop() cannot have both a timeout and at",
            "The one runs at once and then again and again, the other at its times alone.",
            "Leave one of them out.",
        )


class Tick(int):
    """What began a pass of ``latch_loop(at=...)``: ``WL_`` bits, and which time it is.

    The bits are WL_TIMEOUT for a time and WL_LATCH_SET for the latch, or both.
    """

    #: The time whose turn it is, in the local time zone; None if only the latch was set.
    at: datetime | None
    #: How many times have come since the one that was served before, and were skipped; 100 stands for that many or more.
    missed: int

    def __new__(cls, events: int = 0, at: datetime | None = None, missed: int = 0) -> Self:
        """Make one of its parts."""
        tick = super().__new__(cls, events)
        tick.at, tick.missed = at, missed
        return tick


class Times:
    """Which time of an expression is served when; shared by both loops.

    Raises:
        UsageError: The text is no cron expression.
    """

    def __init__(self, runtime: Runtime, expression: str) -> None:
        if not isinstance(expression, str) or (wrong := _cron.problem(expression)) is not None:
            reason = wrong if isinstance(expression, str) else "must be a string"
            shown = f"It is {printable(repr(expression))[:200]}."
            raise UsageError(
                f"latch_loop() cannot wait: at {reason}", shown, 'An expression is five fields, such as "*/15 * * * *".'
            )
        self._runtime = runtime
        self._expression = expression
        #: Wall clock: every time up to here has been served or skipped.
        self._done_until = time.time()
        self._missed = 0
        self._serves_a_time = False
        self.clock: WallClock | None = None
        try:
            self.clock = WallClock()
        except OSError:
            pass  # it sleeps by the monotonic clock

    def __del__(self) -> None:
        if getattr(self, "clock", None) is not None:
            assert self.clock is not None, "asked just now"
            self.clock.close()

    def pass_is_over(self) -> None:
        """Skip what came during the pass of an earlier time."""
        now = time.time()
        if self._serves_a_time and (count := _cron.count_passed(self._expression, self._done_until, now)):
            self._skip(count)
            self._done_until = now
        self._serves_a_time = False

    def due(self, events: int) -> Tick | None:
        """Return what begins the next pass; None if it is to be waited for."""
        now = time.time()
        if now < self._done_until - _STEP:
            self._done_until = now  # the clock was put back, and its times come again
        found = events & WL_LATCH_SET
        count = _cron.count_passed(self._expression, self._done_until, now)
        if not count:
            return Tick(found) if found else None
        if count > 1:
            self._skip(count - 1)
        tick = Tick(found | WL_TIMEOUT, _cron.local(_cron.previous_time(self._expression, now)), self._missed)
        self._done_until, self._missed, self._serves_a_time = now, 0, True
        return tick

    def arm(self) -> tuple[float | None, int]:
        """Prepare the wait; return its timeout and events."""
        at = _cron.next_time(self._expression, max(self._done_until, time.time()))
        if self.clock is None:
            return max(at - time.time(), 0.0), DEFAULT_EVENTS
        self.clock.wait_until(at)
        return None, DEFAULT_EVENTS | WL_SOCKET_READABLE

    def woke(self, events: int) -> None:
        """Take note of what ended the wait."""
        if self.clock is not None and events & WL_SOCKET_READABLE:
            self.clock.was_set()  # whether it was or the time has come, due() looks anew

    def _skip(self, count: int) -> None:
        self._missed = min(self._missed + count, _cron.MAX_COUNTED)
        runs = f"{count} run{'' if count == 1 else 's'}{' or more' if count >= _cron.MAX_COUNTED else ''}"
        say(
            "WARNING",
            f'background worker "{self._runtime.worker.bgw_name}" missed {runs} of "{self._expression}"',
            "They came while it was still busy, or was stopped, and are not made up for.",
        )


class TimesLoop(Iterator[Tick]):
    """The blocking loop."""

    def __init__(self, runtime: Runtime, expression: str, wait_event: str) -> None:
        self._runtime = runtime
        self._times = Times(runtime, expression)
        self._wait_event = wait_event
        self._is_first = True

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Tick:
        runtime, times = self._runtime, self._times
        if self._is_first:
            self._is_first = False
            warn_when_blocked(runtime)
        times.pass_is_over()
        events = 0
        while (tick := times.due(events)) is None:
            timeout, wanted = times.arm()
            events = wait_latch(runtime, timeout, wanted, times.clock, self._wait_event)
            times.woke(events)
        runtime.latch.reset()
        runtime.interrupts.check()
        return tick


class AsyncTimesLoop(AsyncIterator[Tick]):
    """The same for an async worker."""

    def __init__(self, part: AsyncPart, expression: str, wait_event: str) -> None:
        self._part = part
        self._times = Times(part.runtime, expression)
        self._wait_event = wait_event

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Tick:
        times = self._times
        times.pass_is_over()
        events = 0
        while (tick := times.due(events)) is None:
            timeout, wanted = times.arm()
            events = await self._part.wait_latch(timeout, wanted, times.clock, self._wait_event)
            times.woke(events)
        self._part.runtime.latch.reset()
        self._part.runtime.interrupts.check()
        return tick
