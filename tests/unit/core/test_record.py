"""_core/record.py: the derived fields, and what is dropped when."""

from __future__ import annotations

from dataclasses import fields

from bgworker._core.exits import Exit
from bgworker._core.record import Slot
from bgworker._core.states import Intent, Origin, SlotState


def test_restarts_counts_the_lives_after_the_first() -> None:
    """No launch and the first launch are no restart."""
    assert [Slot(0, attempt=attempt).restarts for attempt in (0, 1, 2, 5)] == [0, 0, 1, 4]


def test_terminate_requested_is_one_intent() -> None:
    """C35: only termination sets it, neither a shutdown nor a restart."""
    assert [intent for intent in (None, *Intent) if Slot(0, intent=intent).terminate_requested] == [Intent.FORGET]


def test_clear_leaves_number_and_generation(make_worker) -> None:
    """C34: a freed slot keeps nothing of its worker, but knows which registrations are over."""
    slot = Slot(3)
    for field in fields(Slot):
        setattr(slot, field.name, "something")
    slot.slotno, slot.generation = 3, 7
    slot.clear()
    assert slot == Slot(3, generation=7)


def test_end_life_keeps_the_registration(make_worker) -> None:
    """Between two lives the worker and its counters stay; pid, deadlines and intent belong to the process that is gone."""
    worker = make_worker()
    slot = Slot(1, 4, SlotState.STARTED, worker, Origin.STATIC, pid=9, attempt=2, started_at=1.0, kill_at=2.0)
    slot.intent, slot.failure, slot.has_started_once = Intent.RESTART, "x", True
    end = Exit(1, None, 3.0, "exit 1", False, True)
    slot.end_life(end)
    assert (slot.pid, slot.started_at, slot.kill_at, slot.intent, slot.failure) == (None, None, None, None, "")
    assert (slot.worker, slot.origin, slot.attempt, slot.has_started_once, slot.last_exit) == (worker, Origin.STATIC, 2, True, end)
    slot.end_life(None)
    assert slot.last_exit is end
