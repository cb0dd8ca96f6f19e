"""_core/slots.py: a worker that waits for something outside of its host before it starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bgworker._core.effects import Forgotten, Log, Publish, Signal, Started
from bgworker._core.slots import Slot
from bgworker._core.states import SIGKILL, SIGTERM, ShutdownMode, SlotState

REASON = "waits for singleton lock held by somebody; starts when it is free"


@pytest.fixture
def waiting(bench: Any) -> Callable[..., Slot]:
    """Return a maker of slots whose process is there and waits."""

    def make(name: str = "w", **keys: Any) -> Slot:
        slot: Slot = bench.launched(name, **keys)
        slot.worker = replace(slot.registration, singleton=True)
        bench.bear(slot)
        bench.tell("waits", slot, REASON)
        return slot

    return make


def test_no_deadline_runs_while_it_waits(bench: Any, waiting: Callable[..., Slot]) -> None:
    """The start timeout is over; the reason is what the worker says, until it starts."""
    slot = waiting()
    assert (slot.state, slot.reason, slot.kill_at, slot.is_waiting) == (SlotState.LAUNCHING, REASON, None, True)
    assert bench.machine.next_deadline() is None
    assert bench.tick(1e9) == []
    said = Log("LOG", f'background worker "w" (PID {slot.pid}) waits for another')
    assert bench.tell("waits", slot, "waits for another") == [Publish(slot.slotno), said]
    assert slot.reason == "waits for another"
    bench.tell("started", slot)
    assert (slot.state, slot.reason, slot.is_waiting) == (SlotState.STARTED, "", False)
    assert any(isinstance(effect, Started) for effect in bench.effects)


def test_only_a_singleton_may_wait(bench: Any) -> None:
    """Plugin code that says so of another worker does not get rid of the start timeout."""
    slot = bench.born()
    assert bench.tell("waits", slot, REASON) == []
    assert slot.kill_at is not None


def test_waiting_needs_a_pid(bench: Any) -> None:
    """A launch whose birth nobody has answered keeps its deadline."""
    slot = bench.launched()
    slot.worker = replace(slot.registration, singleton=True)
    assert bench.tell("waits", slot, REASON) == []
    assert slot.kill_at is not None


def test_failure_ends_the_wait(bench: Any, waiting: Callable[..., Slot]) -> None:
    """One that cannot start after all is given as long to leave as any other, and waits no more."""
    slot = waiting(restart=5.0)
    bench.tell("start_failed", slot, "connection lost")
    assert slot.kill_at == bench.now + 5.0
    assert bench.tell("waits", slot, REASON) == []
    bench.exit(slot, 1)
    assert (slot.state, slot.restart_at) == (SlotState.WAITING_RESTART, bench.now + 5.0)
    assert slot.reason.startswith("failed to start: connection lost")


@pytest.mark.parametrize("wish", ["terminate", "restart"])
def test_wishes_climb_the_ladder(bench: Any, waiting: Callable[..., Slot], wish: str) -> None:
    """C35: it has a process, which gets SIGTERM, and SIGKILL after its time."""
    slot = waiting(restart=5.0, stop_timeout=3.0)
    effects = bench.want(wish, slot)
    assert [(e.signum, e.whole_session) for e in effects if isinstance(e, Signal)] == [(SIGTERM, False)]
    assert (slot.state, slot.kill_at) == (SlotState.TERMINATING, bench.now + 3.0)
    effects = bench.tick(3.0)
    assert [e.signum for e in effects if isinstance(e, Signal)] == [SIGKILL]


def test_smart_shutdown_stops_it(bench: Any, waiting: Callable[..., Slot]) -> None:
    """C39: smart waits for work that goes on; one that waits for its start has none."""
    slot = waiting()  # never restarts
    running = bench.started("r")
    bench.call("begin_shutdown", ShutdownMode.SMART)
    assert (slot.state, running.state) == (SlotState.TERMINATING, SlotState.STARTED)
    bench.exit(slot, 1)
    assert bench.machine.shutdown is ShutdownMode.SMART
    assert [e.worker.bgw_name for e in bench.effects if isinstance(e, Forgotten)] == ["w"]


def test_waiting_begins_in_a_smart_shutdown(bench: Any) -> None:
    """C39: and one that finds the lock taken after the shutdown began is stopped then."""
    slot = bench.born()
    slot.worker = replace(slot.registration, singleton=True)
    bench.call("begin_shutdown", ShutdownMode.SMART)
    assert slot.state is SlotState.LAUNCHING
    bench.tell("waits", slot, REASON)
    assert slot.state is SlotState.TERMINATING
