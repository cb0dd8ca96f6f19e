"""_core/runs.py in the machine: started by its times, run to its end, never twice at once; a run comes each hundred of seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bgworker._core.effects import Effect, Exited, Forgotten, Launch, Log, Signal
from bgworker._core.scope import Segment
from bgworker._core.states import Origin, Phase, ShutdownMode, SlotState
from bgworker._core.timetable import Run

Only = Callable[[list[Effect], type[Any]], Any]
HOURLY = {"schedule": "0 * * * *"}


class Hundreds:
    """A run comes at each hundred of seconds; ``leap`` sets the clock of the wall against the machine's."""

    leap = 0.0
    now = 0.0

    def next_run(self, schedule: str, now: float) -> Run:
        """The next hundred."""
        wall = ((now + self.leap) // 100 + 1) * 100
        return Run(wall - self.leap, f"T{wall:g}", wall)

    def has_come(self, run: Run) -> bool:
        """By the wall."""
        return self.now + self.leap >= run.wall

    def missed(self, schedule: str, since: float, now: float) -> int:
        """Hundreds in between."""
        return int((now + self.leap) // 100 - (since + self.leap) // 100)


@pytest.fixture
def times() -> Hundreds:
    return Hundreds()


@pytest.fixture
def bench(make_bench: Any, times: Hundreds) -> Any:
    bench = make_bench(timetable=times)
    bench.now = 1010.0
    return bench


def launches(effects: list[Effect]) -> int:
    return sum(isinstance(effect, Launch) for effect in effects)


def test_starts_at_its_time_and_again_at_the_next_after_its_end(bench: Any) -> None:
    """Registered, it waits; at its time it is launched; after a success it waits for the next time."""
    slot = bench.register(**HOURLY)
    assert (slot.state, slot.reason, slot.restart_at) == (SlotState.NOT_YET_STARTED, "next run at T1100", 1100.0)
    assert (bench.machine.next_deadline(), launches(bench.tick())) == (1100.0, 0)
    for number in range(1, 7):
        assert launches(bench.tick(bench.machine.next_deadline() - bench.now)) == 1
        bench.bear(slot)
        bench.tell("started", slot)
        bench.exit(slot, 0)
        assert (slot.state, slot.reason) == (SlotState.WAITING_RESTART, f"exit 0; next run at T{1100 + 100 * number}")


@pytest.mark.parametrize(
    ("end", "cause"),
    [({"code": 1}, "exit 1"), ({"signal": 9}, "crash: signal 9 (Killed)"), ({"code": 0}, "exit 0"), ({"code": 3}, "crash: exit 3")],
)
def test_however_it_ends_the_schedule_says_what_follows(bench: Any, end: dict[str, int], cause: str) -> None:
    """C29, C30, C31: neither a success nor a failure nor a crash ends the registration or brings the next run nearer."""
    slot = bench.register(**HOURLY)
    bench.tick(90)
    bench.bear(slot)
    bench.tell("started", slot)
    bench.exit(slot, end.get("code", 0), signal=end.get("signal", 0))
    assert (slot.reason, slot.restart_at) == (f"{cause}; next run at T1200", 1200.0)


def test_start_that_fails_waits_for_the_next_time(bench: Any) -> None:
    """A birth that came to nothing and a function that is missing are told, and tried again at the next time."""
    slot = bench.register(**HOURLY)
    bench.tick(90)
    bench.tell("birth_failed", slot, "no process left")
    assert slot.reason == "failed to start: no process left; next run at T1200"
    bench.tick(100)
    bench.bear(slot)
    bench.tell("start_failed", slot, "no function")
    bench.exit(slot, 1)
    assert slot.reason == "failed to start: no function; next run at T1300"


def test_run_that_lasts_too_long_misses_the_next_and_says_so_once(bench: Any, only: Only) -> None:
    """No overlap: a time that comes while it runs is missed; log and reason say so then, the end says how many it were."""
    slot = bench.register(**HOURLY)
    bench.tick(90)
    bench.bear(slot)
    bench.tell("started", slot)
    assert slot.reason == ""
    assert bench.machine.next_deadline() == 1200.0
    line = only(bench.tick(100), Log)
    assert (line.level, line.message) == ("WARNING", 'background worker "w" (PID 101) missed its run at T1200: it is still running')
    assert slot.reason == "missed the run at T1200: it was still running"
    assert not bench.tick(210)
    effects = bench.exit(slot, 0)
    assert slot.reason == "exit 0; missed 3 runs while it ran; next run at T1500"
    assert [(log.level, log.detail) for log in effects if isinstance(log, Log)] == [
        ("LOG", "Exit 0; missed 3 runs while it ran; next run at T1500.")
    ]
    assert only(effects, Exited).exit.is_success


@pytest.mark.parametrize("wish", ["start", "restart"])
def test_start_by_name_runs_it_now(bench: Any, wish: str) -> None:
    """Before the first run as between two, a start or a restart by name is at once, and the schedule goes on after it."""
    slot = bench.register(**HOURLY)
    for _ in range(2):
        assert launches(bench.want(wish, slot) + bench.tick()) == 1
        bench.bear(slot)
        bench.tell("started", slot)
        bench.exit(slot, 0)
        assert slot.reason == "exit 0; next run at T1100"


def test_terminate_and_shutdown_end_it(bench: Any, only: Only) -> None:
    """C35, C39: what waits for its next run is forgotten at once, in a smart shutdown too, which waits for a run that runs."""
    waiting, running, ended = (bench.register(name, **HOURLY) for name in "abc")
    assert only(bench.want("terminate", ended), Forgotten).reason == "terminated through its handle before it started"
    bench.want("start", running)
    bench.tick()
    bench.bear(running)
    bench.tell("started", running)
    effects = bench.call("begin_shutdown", ShutdownMode.SMART)
    assert (waiting.state, running.state) == (SlotState.FREE, SlotState.STARTED)
    assert not [e for e in effects if isinstance(e, Signal)]
    assert only(bench.exit(running, 0), Forgotten).reason == "exit 0"
    assert bench.machine.is_drained


def test_phase_that_is_not_there_puts_the_run_off(make_bench: Any, times: Hundreds) -> None:
    """C07: at its time the database is not up: one run is owed, and starts with the phase."""
    bench = make_bench(phase=Phase.STARTING, timetable=times)
    slot = bench.register(**HOURLY)
    assert launches(bench.tick(150)) == 0
    assert slot.reason.startswith("waits for the database to be read-write")
    bench.tick(200)
    assert slot.restart_at is None
    bench.call("set_phase", Phase.RECOVERY_FINISHED, "")
    assert launches(bench.tick()) == 1


def test_crash_beside_it_ends_the_run_and_not_the_registration(bench: Any) -> None:
    """C31: who shared memory with the crashed one is taken down, and waits for its next time."""
    slot, other = bench.register(**HOURLY), bench.started("other", restart=5.0)
    bench.want("start", slot)
    bench.tick()
    bench.bear(slot)
    bench.tell("started", slot)
    for each in (slot, other):
        bench.tell("attach", each, Segment("s", 1))
    bench.exit(other, signal=11)
    bench.exit(slot, signal=3)
    assert slot.reason == 'reinitialised: "other" crashed (signal 11 (Segmentation fault)); next run at T1100'


def test_reload_lets_a_run_end_and_moves_one_that_waits(bench: Any, make_worker: Any) -> None:
    """A new schedule holds for the next run; a worker that had none is stopped, and one that has none any more starts."""
    slot = bench.register("x", origin=Origin.STATIC, **HOURLY)
    bench.want("replace", slot, make_worker("x", bgw_extra="new", **HOURLY))
    assert (slot.reason, launches(bench.tick())) == ("its registration was changed by a reload; next run at T1100", 0)
    bench.tick(90)
    bench.bear(slot)
    bench.tell("started", slot)
    last = make_worker("x", bgw_extra="last", **HOURLY)
    assert bench.want("replace", slot, last, is_now=False) == []
    bench.exit(slot, 0)
    assert (slot.worker, slot.reason) == (last, "exit 0; next run at T1200")
    bench.want("replace", slot, make_worker("x", restart=5.0))
    assert launches(bench.tick()) == 1
    bench.bear(slot)
    bench.tell("started", slot)
    bench.want("replace", slot, last)
    bench.exit(slot, 1)
    assert slot.reason == "its registration was changed by a reload (exit 1); next run at T1200"


def test_first_wait_becomes_a_plain_start_by_a_reload(bench: Any, make_worker: Any) -> None:
    """A schedule that is taken away before the first run leaves a worker that starts at once."""
    slot = bench.register("x", **HOURLY)
    bench.want("replace", slot, make_worker("x", restart=5.0))
    assert launches(bench.tick()) == 1


def test_clock_that_is_set_moves_what_is_waited_for(bench: Any, times: Hundreds) -> None:
    """Put back: it waits longer. Put forward beyond its time: it runs once, at once. One that runs is not said to miss anything."""
    slot = bench.register(**HOURLY)
    times.leap = -300.0
    times.now = bench.now
    bench.call("clock_was_set")
    assert (slot.reason, slot.restart_at) == ("next run at T800", 1100.0)
    times.leap = -340.0
    bench.call("clock_was_set")
    assert (slot.reason, slot.restart_at) == ("next run at T700", 1040.0)
    times.leap = 5000.0
    bench.call("clock_was_set")
    assert launches(bench.tick()) == 1
    bench.bear(slot)
    bench.tell("started", slot)
    times.leap = 7050.0
    bench.call("clock_was_set")
    assert bench.machine.next_deadline() == 1050.0
    assert not bench.tick()


def test_clock_that_is_put_back_does_not_take_back_a_start(bench: Any, times: Hundreds) -> None:
    """What is due in this turn, because somebody asked for it, is launched in this turn."""
    slot = bench.register(**HOURLY)
    bench.want("start", slot)
    times.leap, times.now = -300.0, bench.now
    bench.call("clock_was_set")
    assert launches(bench.tick()) == 1


def test_without_a_schedule_nobody_asks_the_timetable(make_bench: Any) -> None:
    """A machine without such workers has no use for one: its own refuses to be asked."""
    bench = make_bench()
    slot = bench.started(restart=5.0)
    bench.exit(slot, 1)
    assert bench.call("clock_was_set") == []
    assert slot.run is None
