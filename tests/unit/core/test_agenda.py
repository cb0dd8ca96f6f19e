"""_core/agenda.py: what each slot waits for, asked when something changed; the earliest of it, and who is due."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bgworker._core import reasons
from bgworker._core.agenda import Agenda, Instants
from bgworker._core.conditions import Conditions
from bgworker._core.order import Order
from bgworker._core.record import Slot
from bgworker._core.states import Phase, SlotState
from bgworker._core.timetable import Run
from bgworker._spec import BackgroundWorker

MakeWorker = Callable[..., BackgroundWorker]


def test_latest_answer_counts() -> None:
    """A slot that was due soon and is due late, or never, is not found due soon."""
    instants = Instants()
    instants.set_all({0: 5.0, 1: 3.0, 2: None})
    assert instants.earliest() == 3.0
    instants.set(1, 9.0)
    assert instants.earliest() == 5.0
    instants.set(0, None)
    assert instants.earliest() == 9.0
    instants.set(1, 3.0)
    assert instants.earliest() == 3.0


def test_due_slots_come_in_order_and_are_taken_out() -> None:
    """Whoever was due is out until it is entered again; the others stay as they are."""
    instants = Instants()
    instants.set_all({2: 1.0, 0: 2.0, 1: 7.0})
    assert instants.take_due(2.0) == [0, 2]
    assert instants.earliest() == 7.0
    instants.set(2, 2.5)
    assert instants.earliest() == 2.5


def test_set_all_forgets_what_was_entered_before() -> None:
    """After a change of everything only the new answers count."""
    instants = Instants()
    instants.set_all({0: 1.0})
    instants.set_all({1: 4.0})
    assert instants.take_due(9.0) == [1]
    assert instants.earliest() is None


class Bench:
    """Three slots, and their agenda, which has been asked before."""

    def __init__(self, worker: BackgroundWorker, phase: Phase = Phase.RECOVERY_FINISHED) -> None:
        self.slots = [Slot(slotno, worker=worker) for slotno in range(3)]
        self.order = Order(self.slots)
        self.conditions = Conditions(self.order)
        self.conditions.set_phase(phase, "")
        self.agenda = Agenda(self.slots, self.conditions)
        assert self.agenda.earliest() is None

    def enter(self, slotno: int, state: SlotState, **fields: object) -> Slot:
        """Put a slot into a state, and have it asked again."""
        slot = self.slots[slotno]
        for name, value in {"state": state, **fields}.items():
            setattr(slot, name, value)
        self.agenda.changed((slotno, *self.order.note(slot)), 10.0)
        return slot


def test_slot_is_asked_when_somebody_says_that_it_changed(make_worker: MakeWorker) -> None:
    """What a slot waits for is kept: without a word the agenda does not look at it again."""
    bench = Bench(make_worker())
    slot = bench.enter(1, SlotState.LAUNCHING, kill_at=20.0)
    assert bench.agenda.earliest() == 20.0
    slot.kill_at = 15.0
    assert bench.agenda.earliest() == 20.0
    bench.agenda.changed([1], 10.0)
    assert bench.agenda.earliest() == 15.0
    slot.kill_at = None
    bench.agenda.changed_all(10.0)
    assert bench.agenda.earliest() is None


def test_one_that_was_due_is_asked_again(make_worker: MakeWorker) -> None:
    """Whoever took it and did nothing about it finds it due again."""
    bench = Bench(make_worker())
    slot = bench.enter(2, SlotState.TERMINATING, kill_at=20.0)
    bench.enter(0, SlotState.WAITING_RESTART, restart_at=19.0)
    assert bench.agenda.take_due(18.0) == []
    assert bench.agenda.take_due(20.0) == [bench.slots[0], slot]
    slot.kill_at = None
    assert bench.agenda.take_due(20.0) == [bench.slots[0]]


@pytest.mark.parametrize("first", ["kill_at", "stuck_at", "recycle_at", "run"])
def test_first_deadline_of_a_running_worker_counts(make_worker: MakeWorker, first: str) -> None:
    """A worker that runs may have several deadlines, and need not have any."""
    bench = Bench(make_worker())
    later = dict.fromkeys(("kill_at", "stuck_at", "recycle_at"), 40.0)
    bench.enter(0, SlotState.STARTED, **{**later, "run": Run(40.0, "T"), first: Run(30.0, "T") if first == "run" else 30.0})
    bench.enter(1, SlotState.STARTED)
    assert bench.agenda.earliest() == 30.0


def test_one_that_waits_for_nothing_is_due_at_once(make_worker: MakeWorker) -> None:
    """At once means the latest instant that was heard of, and the phase that it needs is waited for without a deadline."""
    bench = Bench(make_worker(), Phase.CONSISTENT)
    bench.enter(0, SlotState.NOT_YET_STARTED)
    assert bench.agenda.earliest() is None
    bench.conditions.set_phase(Phase.RECOVERY_FINISHED, "")
    bench.agenda.changed_all(12.0)
    assert bench.agenda.earliest() == 12.0


def test_one_that_comes_after_others_is_due_when_its_reason_is_stale(make_worker: MakeWorker) -> None:
    """A change of those whom it waits for is a matter for the machine even if the wait goes on."""
    bench = Bench(make_worker(after=["a:ready"]))
    slot = bench.enter(0, SlotState.NOT_YET_STARTED, reason="something else")
    assert bench.agenda.take_due(10.0) == [slot]
    slot.reason = bench.conditions.unmet(slot.registration)
    assert bench.agenda.earliest() is None
    bench.enter(1, SlotState.NOT_YET_STARTED, worker=make_worker("a"), reason=reasons.STARTS_AT_ONCE)
    assert bench.agenda.take_due(10.0) == bench.slots[:2], "a is registered now, and says nothing of being absent"


def test_those_of_one_crash_wait_for_each_other(make_worker: MakeWorker) -> None:
    """C31: nobody of a reinitialisation is due before its last process is gone; then all are, though nobody names them."""
    bench = Bench(make_worker())
    first = bench.enter(0, SlotState.WAITING_RESTART, restart_at=11.0, reinitialisation=1)
    last = bench.enter(1, SlotState.TERMINATING, kill_at=15.0, reinitialisation=1)
    other = bench.enter(2, SlotState.WAITING_RESTART, restart_at=11.0, reinitialisation=2)
    bench.agenda.changed_all(11.0)
    assert bench.agenda.take_due(11.0) == [other]
    bench.enter(1, SlotState.WAITING_RESTART, kill_at=None, restart_at=11.0)
    assert bench.agenda.take_due(11.0) == [first, last, other]
