"""ready = "notify" in the machine: a worker that runs and is not ready yet, in time, too late, and never."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bgworker._core.effects import Effect, Exited, Forgotten, Log, Publish, Signal, Started
from bgworker._core.states import ShutdownMode, SlotState

Only = Callable[[list[Effect], type[Any]], Any]
NOTIFY = {"ready": "notify", "start_timeout": 10.0, "restart": 7.0}


def test_ready_in_time(bench: Any, only: Only) -> None:
    """It counts as started at once, says that it is not ready, and keeps its deadline until it is; others wait for that."""
    slot = bench.born("a", **NOTIFY)
    after = bench.register("b", after=["a:ready"])
    running = bench.register("c", after=["a"])
    bench.tick(4.0)
    assert only(bench.tell("started", slot), Started).pid == slot.pid
    assert (slot.state, slot.reason) == (SlotState.STARTED, "started, not ready yet")
    assert slot.kill_at == slot.launched_at + 10.0
    bench.tick()
    assert [after.state, running.state] == [SlotState.NOT_YET_STARTED, SlotState.LAUNCHING]
    assert only(bench.tell("ready", slot), Publish).slotno == slot.slotno
    assert (slot.reason, slot.kill_at) == ("", None)
    assert bench.tell("ready", slot) == [], "once for each life"
    bench.tick()
    assert after.state is SlotState.LAUNCHING
    bench.bear(after)
    bench.tell("started", after)
    bench.bear(running)
    bench.tell("started", running)
    assert bench.machine.next_deadline() is None


@pytest.mark.parametrize("end", [{"code": 0}, {"code": 1}, {"signal": 15}, {"code": 2}])
def test_not_ready_in_time_is_a_failed_start(bench: Any, only: Only, end: dict[str, int]) -> None:
    """C10: it is told to go as on a wish, and however it ends then, that is a failed start and no crash (C31)."""
    slot = bench.started("a", **NOTIFY, stop_signal="USR1", stop_timeout=3.0, restart_on="always")
    never = bench.started("n", ready="notify", start_timeout=10.0)
    effects = bench.tick(10.0)
    assert [(s.signum, s.whole_session) for s in effects if isinstance(s, Signal)] == [(10, False), (15, False)]
    line = next(line for line in effects if isinstance(line, Log))
    assert line.message == 'background worker "a" (PID 101) failed to start: it was not ready within 10 s'
    assert slot.reason.endswith("killed if still there after 3 s, then counts as a failed start")
    exited = only(bench.exit(slot, end.get("code", 0), signal=end.get("signal", 0)), Exited).exit
    assert (exited.is_failed_start, exited.is_crash, exited.is_success) == (True, False, False)
    assert slot.reason == "failed to start: it was not ready within 10 s; restarts after 7 s, try 2"
    assert only(bench.exit(never, end.get("code", 0), signal=end.get("signal", 0)), Forgotten).has_failed


def test_end_before_it_is_ready(bench: Any) -> None:
    """An end of its own before that is what the code says: its function ran."""
    slot = bench.started("a", **NOTIFY)
    bench.exit(slot, 1)
    assert slot.last_exit.reason == "exit 1"
    bench.tick(7.0)
    bench.start_again(slot)
    assert slot.reason == "started, not ready yet", "each life says so anew"
    bench.exit(slot, 2)
    assert slot.last_exit.is_crash


def test_ready_overtakes_started(bench: Any) -> None:
    """A program can be ready before the host knows that it was executed."""
    slot = bench.born("a", **NOTIFY)
    bench.tell("ready", slot)
    assert slot.state is SlotState.LAUNCHING
    bench.tell("started", slot)
    assert (slot.reason, slot.kill_at) == ("", None)


def test_ready_of_one_that_needs_not_say_so(bench: Any) -> None:
    """Without the key a worker is ready when it runs, and what it says about that is nothing."""
    slot = bench.started("a")
    assert bench.tell("ready", slot) == []
    other = bench.register("b", after=["a:ready"])
    bench.tick()
    assert other.state is SlotState.LAUNCHING


def test_shutdown_before_it_is_ready(bench: Any) -> None:
    """C39: one that is not ready is stopped like any other, and keeps its deadline while others come first."""
    slot = bench.started("a", **NOTIFY)
    other = bench.started("b", after=["a"], stop_timeout=60.0)
    bench.call("begin_shutdown", ShutdownMode.FAST)
    assert slot.reason == 'the host shuts down; stopped when "b" is gone'
    bench.tell("ready", slot)
    assert slot.reason == 'the host shuts down; stopped when "b" is gone'
    bench.exit(other, 0)
    assert slot.state is SlotState.TERMINATING
