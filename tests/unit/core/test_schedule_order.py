"""schedule beside after and ready: who waits for whom when a time comes, and what a run that is not ready means."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.core.test_schedule import HOURLY, Hundreds, launches

from bgworker._core.states import SlotState


@pytest.fixture
def bench(make_bench: Any) -> Any:
    bench = make_bench(timetable=Hundreds())
    bench.now = 1010.0
    return bench


def run(bench: Any, slot: Any, code: int | None = 0) -> None:
    """Have a run begin that was launched, and end; None lets it go on."""
    bench.bear(slot)
    bench.tell("started", slot)
    if code is not None:
        bench.exit(slot, code)


@pytest.mark.parametrize("condition", ["started", "ready"])
def test_a_run_waits_for_another_worker(bench: Any, condition: str) -> None:
    """Its time comes first, then it waits as any other, visibly; times that come meanwhile are not made up for."""
    slot = bench.register("report", **HOURLY, after=[f"cache:{condition}"])
    cache = bench.launched("cache", restart=5.0, start_timeout=1000.0)
    assert slot.reason == "next run at T1100"
    assert launches(bench.tick(90)) == 0
    assert slot.reason == f"waits for cache:{condition}; starts when it is"
    assert launches(bench.tick(150)) == 0
    bench.bear(cache)
    bench.tell("started", cache)
    assert launches(bench.tick()) == 1
    run(bench, slot)
    assert slot.reason == "exit 0; next run at T1300"


def test_each_run_looks_again(bench: Any) -> None:
    """The condition holds for each run: one that was ready at the first and is down at the second is waited for."""
    cache = bench.started("cache", restart=500.0)
    slot = bench.register("report", **HOURLY, after=["cache:ready"])
    assert launches(bench.tick(90)) == 1
    run(bench, slot)
    bench.exit(cache, 1)
    assert launches(bench.tick(100)) == 0
    assert slot.state is SlotState.WAITING_RESTART
    assert slot.reason.endswith("waits for cache:ready; starts when it is")


def test_after_a_scheduled_worker(bench: Any) -> None:
    """Its first run is its start, for good; ready it is while a run goes on; finished it never is."""
    slot = bench.register("migrate", **HOURLY)
    started, ready, finished = (bench.register(c, restart=5.0, after=[f"migrate:{c}"]) for c in ("started", "ready", "finished"))
    assert launches(bench.tick()) == 0
    assert launches(bench.tick(90)) == 1
    run(bench, slot, None)
    assert launches(bench.tick()) == 2
    assert [each.state for each in (started, ready)] == [SlotState.LAUNCHING] * 2
    for each in (started, ready):
        run(bench, each, None)
    bench.exit(slot, 0)
    for each in (started, ready):
        bench.exit(each, 1)
    assert launches(bench.tick(5)) == 1
    assert started.state is SlotState.LAUNCHING
    assert ready.reason.endswith("waits for migrate:ready; starts when it is")
    assert finished.reason == "waits for migrate:finished; starts when it is"
    assert launches(bench.tick(100)) == 1, "the next run"
    run(bench, slot, None)
    assert launches(bench.tick()) == 1
    assert ready.state is SlotState.LAUNCHING


def test_a_run_that_says_when_it_is_ready(bench: Any) -> None:
    """Others wait for its word in each run; without it in time the run is a failed start, and the next time is the next try."""
    slot = bench.register("warm", **HOURLY, ready="notify", start_timeout=20)
    other = bench.register("other", restart=5.0, after=["warm:ready"])
    bench.tick(90)
    run(bench, slot, None)
    assert slot.reason == "started, not ready yet"
    assert launches(bench.tick()) == 0
    bench.tell("ready", slot)
    assert launches(bench.tick()) == 1
    assert other.state is SlotState.LAUNCHING
    bench.exit(slot, 0)
    assert slot.reason == "exit 0; next run at T1200"
    bench.tick(100)
    run(bench, slot, None)
    bench.tick(20)
    assert slot.state is SlotState.TERMINATING
    bench.exit(slot, 1)
    assert slot.reason.startswith("failed to start: it was not ready within 20 s")
    assert slot.reason.endswith("; next run at T1300")
