"""_core/conditions.py: what holds a start back beside its own time."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from bgworker._core import reasons
from bgworker._core.codec import UnreadableError
from bgworker._core.conditions import Conditions
from bgworker._core.effects import Publish
from bgworker._core.order import Order
from bgworker._core.record import Slot
from bgworker._core.states import NEEDED_PHASE, Phase, SlotState
from bgworker._spec import BackgroundWorker, BgWorkerStartTime

MakeWorker = Callable[..., BackgroundWorker]


@pytest.fixture
def conditions() -> Conditions:
    return Conditions(Order([]))


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("start_time", list(BgWorkerStartTime))
def test_phase_is_waited_for(conditions: Conditions, make_worker: MakeWorker, start_time: BgWorkerStartTime, phase: Phase) -> None:
    """C07: a worker is held back, and says so, in exactly the phases before the one of its start time."""
    worker = make_worker(bgw_start_time=start_time)
    conditions.set_phase(phase, "it is asleep")
    assert conditions.is_held_back(worker) is (phase < NEEDED_PHASE[start_time])
    assert ("it is asleep" in conditions.unmet(worker)) is conditions.is_held_back(worker)


def test_phase_is_told_before_others(conditions: Conditions, make_worker: MakeWorker) -> None:
    """Of two conditions that are not met the phase is told; then the others, then none."""
    worker = make_worker("b", after=["a"])
    assert "database" in conditions.unmet(worker)
    conditions.set_phase(Phase.RECOVERY_FINISHED, "")
    assert conditions.unmet(worker) == "waits for a:started (a is not registered); starts when it is"
    assert conditions.unmet(make_worker("c")) == ""


def test_slot_says_what_holds_it_back_once(conditions: Conditions, make_worker: MakeWorker) -> None:
    """Others are told of a reason only when it is another one."""
    slot = Slot(3, state=SlotState.WAITING_RESTART, worker=make_worker(), cause="exit 1")
    assert conditions.reword(slot) == [Publish(3)]
    assert slot.reason.startswith("exit 1; waits for the database")
    assert conditions.reword(slot) == []
    conditions.set_phase(Phase.RECOVERY_FINISHED, "")
    assert conditions.reword(slot) == [Publish(3)]
    assert slot.reason == f"exit 1; {reasons.STARTS_AT_ONCE}"


@pytest.mark.parametrize("state", list(SlotState))
@pytest.mark.parametrize("failure", ["", "failed to start: no function"])
def test_lost_phase_concerns_those_that_are_up(
    conditions: Conditions, make_worker: MakeWorker, state: SlotState, failure: str
) -> None:
    """Only a process that is not on its way out can be stopped because the database went away."""
    worker = None if state is SlotState.FREE else make_worker(stop_when="phase_lost")
    slot = Slot(0, state=state, worker=worker, failure=failure)
    is_up = state in (SlotState.LAUNCHING, SlotState.STARTED) and not failure
    assert conditions.lost(slot) == ("stopped because the database is not read-write" if is_up else "")
    conditions.set_phase(Phase.RECOVERY_FINISHED, "")
    assert conditions.lost(slot) == ""


def test_lost_phase_concerns_those_that_asked(conditions: Conditions, make_worker: MakeWorker) -> None:
    """Without stop_when a worker runs on whatever the database does."""
    assert conditions.lost(Slot(0, state=SlotState.STARTED, worker=make_worker())) == ""


def test_phase_goes_through_a_document(conditions: Conditions, make_worker: MakeWorker) -> None:
    """The phase arrives with its detail; what is no phase is refused."""
    conditions.set_phase(Phase.CONSISTENT, "it replays")
    carried = json.loads(json.dumps(conditions.carry()))
    other = Conditions(Order([]))
    other.resume(carried)
    assert other.unmet(make_worker()) == conditions.unmet(make_worker())
    with pytest.raises(UnreadableError):
        other.resume({**carried, "phase": 9})
