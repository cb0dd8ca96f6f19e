"""latch_loop(at=...): which pass gets which time, what is skipped, what a clock that is set does. The clock is the test's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bgworker._worker import at_times
from bgworker._worker.at_times import Tick, Times, refuse_timeout
from bgworker._worker.refusals import UsageError
from bgworker._worker.wait import WL_LATCH_SET, WL_TIMEOUT

MINUTE = 1_700_000_040.0


class Clock:
    """The wall clock, a little after a whole minute."""

    now = MINUTE + 1

    def time(self) -> float:
        """As time.time()."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    assert MINUTE % 60 == 0
    monkeypatch.setattr(at_times, "time", clock)
    return clock


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(at_times, "say", lambda level, message, detail="", hint="": lines.append(message))
    return lines


@pytest.fixture
def times(clock: Clock, said: list[str]) -> Times:
    runtime: Any = SimpleNamespace(worker=SimpleNamespace(bgw_name="w"))
    return Times(runtime, "* * * * *")


def parts(tick: Tick | None) -> tuple[int, float | None, int]:
    assert tick is not None
    return int(tick), None if tick.at is None else tick.at.timestamp(), tick.missed


def test_waits_first_and_serves_each_time_once(times: Times, clock: Clock) -> None:
    """Nothing is due at the start; each time comes once, with its own instant in the local zone."""
    assert times.due(0) is None
    for number in (1, 2):
        clock.now = MINUTE + 60 * number
        tick = times.due(0)
        assert parts(tick) == (WL_TIMEOUT, clock.now, 0)
        assert tick is not None
        assert tick.at is not None
        assert tick.at.tzinfo is not None
        clock.now += 30
        times.pass_is_over()
        assert times.due(0) is None


def test_latch_begins_a_pass_of_its_own(times: Times, clock: Clock) -> None:
    """The latch alone has no time; with one it says both."""
    assert parts(times.due(WL_LATCH_SET)) == (WL_LATCH_SET, None, 0)
    clock.now = MINUTE + 60
    times.pass_is_over()
    assert parts(times.due(WL_LATCH_SET)) == (WL_LATCH_SET | WL_TIMEOUT, MINUTE + 60, 0)


def test_times_that_come_during_a_pass_are_skipped_and_said(times: Times, clock: Clock, said: list[str]) -> None:
    """Nothing is made up for: the next pass is the next time, and it knows how many were missed."""
    clock.now = MINUTE + 60
    assert times.due(0)
    clock.now = MINUTE + 185
    times.pass_is_over()
    assert said == ['background worker "w" missed 2 runs of "* * * * *"']
    assert times.due(0) is None
    assert parts(times.due(WL_LATCH_SET)) == (WL_LATCH_SET, None, 0)
    times.pass_is_over()
    clock.now = MINUTE + 240
    assert parts(times.due(0)) == (WL_TIMEOUT, MINUTE + 240, 2)
    times.pass_is_over()
    clock.now = MINUTE + 300
    assert parts(times.due(0)) == (WL_TIMEOUT, MINUTE + 300, 0)


def test_time_that_comes_during_a_pass_for_the_latch_is_served_after_it(times: Times, clock: Clock, said: list[str]) -> None:
    """Such a pass is not the work that must not overlap."""
    assert times.due(WL_LATCH_SET)
    clock.now = MINUTE + 65
    times.pass_is_over()
    assert parts(times.due(0)) == (WL_TIMEOUT, MINUTE + 60, 0)
    assert not said


def test_clock_that_is_set(times: Times, clock: Clock, said: list[str]) -> None:
    """Put forward: the latest time it leapt over is served, once. Put back: the times come again."""
    clock.now = MINUTE + 605
    assert parts(times.due(0)) == (WL_TIMEOUT, MINUTE + 600, 9)
    assert said == ['background worker "w" missed 9 runs of "* * * * *"']
    clock.now = MINUTE + 5
    times.pass_is_over()
    assert times.due(0) is None
    clock.now = MINUTE + 60
    assert parts(times.due(0)) == (WL_TIMEOUT, MINUTE + 60, 0)


def test_count_of_missed_times_ends(times: Times, clock: Clock, said: list[str]) -> None:
    """A worker that was stopped for a month says so in a few words."""
    clock.now = MINUTE + 30 * 86_400
    assert parts(times.due(0)) == (WL_TIMEOUT, clock.now, 99)


@pytest.mark.parametrize("text", ["* * * *", "61 * * * *", 15])
def test_wrong_expression_is_refused(text: Any, clock: Clock) -> None:
    """The text and what is wrong with it."""
    with pytest.raises(UsageError, match=r"latch_loop\(\) cannot wait: at (must|has)") as caught:
        Times(None, text)  # type: ignore[arg-type]
    assert repr(text) in caught.value.message_detail


def test_timeout_beside_it_is_refused() -> None:
    """A loop has one or the other."""
    refuse_timeout(None)
    with pytest.raises(UsageError, match="cannot have both a timeout and at"):
        refuse_timeout(1.0)
