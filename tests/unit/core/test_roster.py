"""_core/roster.py: who holds which slot, and the one way in which a slot changes."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from bgworker._core.actions import Facts
from bgworker._core.agenda import Agenda
from bgworker._core.codec import UnreadableError
from bgworker._core.conditions import Conditions
from bgworker._core.effects import Log
from bgworker._core.order import Order
from bgworker._core.record import Slot
from bgworker._core.roster import Roster
from bgworker._core.states import Intent
from bgworker._core.table import Event
from bgworker._spec import BackgroundWorker
from bgworker.errors import NoFreeSlot

MakeWorker = Callable[..., BackgroundWorker]


def a_roster(size: int = 3) -> Roster:
    """Return a roster with its accounts."""
    slots = [Slot(slotno) for slotno in range(size)]
    order = Order(slots)
    return Roster(slots, order, Agenda(slots, Conditions(order)))


def fill(roster: Roster, worker: BackgroundWorker) -> Slot:
    """Register a worker."""
    slot = roster.take_free()
    slot.generation += 1
    slot.worker = worker
    roster.fire(slot, Event.REGISTER, Facts(1.0))
    return slot


def forget(roster: Roster, slot: Slot) -> None:
    """Terminate a worker that has no process."""
    roster.fire(slot, Event.TERMINATE, Facts(1.0, intent=Intent.FORGET))


def test_lowest_free_slot_is_taken(make_worker: MakeWorker) -> None:
    """C14: whichever was freed, the lowest comes first; when all are taken the refusal says by whom."""
    roster = a_roster()
    assert [fill(roster, make_worker()).slotno for _ in range(3)] == [0, 1, 2]
    with pytest.raises(NoFreeSlot, match="too many background workers") as refusal:
        roster.take_free()
    assert "held by w (3, lib)" in refusal.value.message_detail
    forget(roster, roster.slots[2])
    forget(roster, roster.slots[0])
    assert [fill(roster, make_worker()).slotno for _ in range(2)] == [0, 2]


def test_found_by_registration_and_launch(make_worker: MakeWorker) -> None:
    """What belongs to an earlier registration, an earlier launch or no slot at all is not found."""
    roster = a_roster()
    slot = fill(roster, make_worker())
    roster.fire(slot, Event.LAUNCH, Facts(1.0, timeout=9.0))
    assert roster.find(0, 1) is roster.find(0, 1, 1) is slot
    assert roster.find(0, 1, 2) is roster.find(0, 2) is roster.find(1, 0) is roster.find(3, 1) is roster.find(-3, 1) is None


def test_rejected_event_changes_nothing(make_worker: MakeWorker) -> None:
    """An event that the table rejects leaves a trace in the log and nothing else."""
    roster = a_roster()
    slot = fill(roster, make_worker())
    before = roster.carry()
    (log,) = roster.fire(slot, Event.STARTED, Facts(1.0))
    assert log == Log("DEBUG", 'ignored event "started" of background worker "w": it has no process')
    assert roster.carry() == before


def test_whoever_keeps_account_hears_of_a_change(make_worker: MakeWorker) -> None:
    """A fired event reaches the agenda and the order, with those who come after the worker."""
    slots = [Slot(slotno) for slotno in range(2)]
    order = Order(slots)
    agenda = Agenda(slots, Conditions(order))
    roster = Roster(slots, order, agenda)
    assert agenda.earliest() is None
    first = fill(roster, make_worker("a"))
    roster.fire(first, Event.LAUNCH, Facts(1.0, timeout=9.0))
    assert agenda.earliest() == 10.0
    assert order.standing("a").absence == ""
    roster.fire(first, Event.GONE_FOR_GOOD, Facts(2.0, reason="exit 3"))
    assert agenda.earliest() is None
    assert order.standing("a").absence == "is over: exit 3"


def test_slots_go_through_a_document(make_worker: MakeWorker) -> None:
    """Slots arrive in lists that others hold already, and the next registration finds the lowest free one."""
    roster = a_roster()
    fill(roster, make_worker())
    forget(roster, fill(roster, make_worker("x")))
    fill(roster, make_worker())
    carried = json.loads(json.dumps(roster.carry()))
    other = a_roster()
    slots = other.slots
    other.resume(carried)
    assert other.slots is slots
    assert slots == roster.slots
    assert other.take_free().slotno == 2
    with pytest.raises(UnreadableError, match="cannot be one of 1"):
        a_roster(1).resume([{**carried[0], "slotno": 1}])
    with pytest.raises(UnreadableError, match="contradicts itself"):
        a_roster().resume([{**carried[0], "state": "free"}])
