"""``latch_loop()``: the loop everybody writes, with nothing to forget.

The first pass runs at once, because a worker that has just started has work that came while
it was down, and a loop that slept first would be wrong by one nap for every author. Each
later pass begins when the latch was set or the timeout has passed, counted from the end of
the pass before; the latch is reset before the pass, so that work that is announced during a
pass starts another one.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Self

from bgworker._process import own_signals
from bgworker._worker.log import say
from bgworker._worker.wait import wait_latch

if TYPE_CHECKING:
    from bgworker._worker.async_part import AsyncPart
    from bgworker._worker.runtime import Runtime

#: Seconds, None for no timeout, or a function that is asked before each wait.
Timeout = float | None | Callable[[], float | None]


def seconds(timeout: Timeout) -> float | None:
    """Return the timeout of the next wait."""
    return timeout() if callable(timeout) else timeout


class LatchLoop(Iterator[int]):
    """The blocking loop. Each pass gets the events that began it; the first one gets 0."""

    def __init__(self, runtime: Runtime, timeout: Timeout, wait_event: str) -> None:
        self._runtime = runtime
        self._timeout = timeout
        self._wait_event = wait_event
        self._is_first = True

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> int:
        runtime = self._runtime
        events = 0
        if self._is_first:
            self._is_first = False
            warn_when_blocked(runtime)
        else:
            events = wait_latch(runtime, seconds(self._timeout), None, None, self._wait_event)
        runtime.latch.reset()
        runtime.interrupts.check()
        return events


class AsyncLatchLoop(AsyncIterator[int]):
    """The same for an async worker."""

    def __init__(self, part: AsyncPart, timeout: Timeout, wait_event: str) -> None:
        self._part = part
        self._timeout = timeout
        self._wait_event = wait_event
        self._is_first = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> int:
        events = 0
        if self._is_first:
            self._is_first = False
        else:
            events = await self._part.wait_latch(seconds(self._timeout), None, None, self._wait_event)
        self._part.runtime.latch.reset()
        self._part.runtime.interrupts.check()
        return events


def warn_when_blocked(runtime: Runtime) -> None:
    """Say that a loop begins which SIGTERM cannot end."""
    if own_signals.is_blocked(signal.SIGTERM):
        say(
            "WARNING",
            f'background worker "{runtime.worker.bgw_name}" loops with its signals still blocked',
            "SIGTERM and SIGHUP cannot reach it, so it ends only when the host kills it.",
            "Call bgworker.worker.unblock_signals() before the loop.",
        )
