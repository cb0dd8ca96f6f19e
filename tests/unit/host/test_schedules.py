"""_host/schedules.py and the timer of the wall clock: instants for the machine, no descriptor without a schedule."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator

import pytest

from bgworker._core.timetable import Run
from bgworker._host import schedules
from bgworker._host.schedules import Schedules
from bgworker._loop import Loop
from bgworker._wall_clock import WallClock


@pytest.fixture
def clock() -> Iterator[WallClock]:
    clock = WallClock()
    yield clock
    clock.close()


def is_readable(clock: WallClock, seconds: float) -> bool:
    return bool(select.select([clock], [], [], seconds)[0])


def test_timer_comes_at_its_instant_and_is_armed_anew(clock: WallClock) -> None:
    """Not before, also not by what it was armed for earlier; and an instant that is over comes at once."""
    assert not is_readable(clock, 0)
    clock.wait_until(time.time() - 5)
    assert is_readable(clock, 10)
    assert not clock.was_set()
    assert not is_readable(clock, 0)
    clock.wait_until(time.time() - 5)
    clock.wait_until(None)
    assert not is_readable(clock, 0)
    assert not clock.was_set()
    at = time.time() + 0.05
    clock.wait_until(at)
    assert is_readable(clock, 10)
    assert time.time() >= at


class StoppedClock:
    """The wall clock of a test."""

    now = 1_000_000_030.0

    def time(self) -> float:
        """As time.time()."""
        return self.now


def test_instants_are_those_of_the_machines_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next whole minute, a hair late and never early; what has passed is counted by how long ago it was."""
    wall = StoppedClock()
    monkeypatch.setattr(schedules, "time", wall)
    times = Schedules(FakeLoop(), lambda: None)  # type: ignore[arg-type]
    run = times.next_run("* * * * *", 500.0)
    assert run.wall == 1_000_000_080.0 - 1_000_000_080.0 % 60
    assert run.at == pytest.approx(500.0 + run.wall - wall.now + 0.002)
    assert run.text.startswith("2001-09-")
    assert not times.has_come(run)
    wall.now += 120
    assert times.has_come(run)
    assert times.missed("* * * * *", 500.0, 620.0) == 2
    assert times.missed("* * * * *", 619.0, 620.0) == 0
    times.close()


class FakeLoop:
    """Takes note of who is waited for."""

    def __init__(self) -> None:
        self.added: list[object] = []

    def add(self, source: object, events: int, ready: object) -> None:
        """As Loop.add()."""
        self.added.append(source)


def test_no_descriptor_without_a_schedule() -> None:
    """The timer is made for the first schedule, and once."""
    loop = FakeLoop()
    times = Schedules(loop, lambda: None)  # type: ignore[arg-type]
    assert not loop.added
    times.has_come(Run(0.0, "", 0.0))
    for _ in range(2):
        times.next_run("0 3 * * *", 0.0)
    assert len(loop.added) == 1
    times.close()


def test_clock_that_was_set_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's word goes to the machine, and the timer is armed again. The clock itself is not the test's to set."""
    told: list[None] = []
    loop = Loop(())
    times = Schedules(loop, lambda: told.append(None))
    times.next_run("0 3 * * *", 0.0)
    clock = times._clock
    assert clock is not None
    monkeypatch.setattr(clock, "was_set", lambda: True)
    clock.wait_until(1.0)
    loop.turn(time.monotonic() + 10)
    assert len(told) == 1
    loop.turn(time.monotonic())
    assert len(told) == 1
    times.close()
    loop.close()


def test_system_without_the_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the times are still known: only a clock that is set is noticed late."""

    def none() -> WallClock:
        raise OSError(38, "not implemented")

    monkeypatch.setattr(schedules, "WallClock", none)
    times = Schedules(FakeLoop(), lambda: None)  # type: ignore[arg-type]
    assert times.next_run("0 3 * * *", 0.0).at > 0
    times.close()
