"""_core/table.py: the rules in words, held against the literal table. Its totality is proved in tests/model."""

from __future__ import annotations

import pytest

from bgworker._core.states import HAS_PROCESS, WAITS_FOR_START, SlotState
from bgworker._core.table import TABLE, Action, Event, ImpossibleTransition, Rejection, Step, look_up

STEPS = [(state, event, step) for state, row in TABLE.items() for event, step in row.items() if isinstance(step, Step)]


def test_rule_1_only_launch_leads_to_a_process() -> None:
    """A slot has at most one process: only LAUNCH brings one, and only where there is none."""
    brings = {(state, event) for state, event, step in STEPS if state not in HAS_PROCESS and step.next_state in HAS_PROCESS}
    assert brings == {(state, Event.LAUNCH) for state in WAITS_FOR_START}


def test_rule_1_only_an_end_frees_a_slot_with_a_process() -> None:
    """No wish, deadline or shutdown frees a slot whose process may still live."""
    frees = {event for state, event, step in STEPS if state in HAS_PROCESS and step.next_state not in HAS_PROCESS}
    assert frees == {Event.GONE_TO_RESTART, Event.GONE_FOR_GOOD}


def test_rule_2_every_wish_to_go_meets_in_one_state() -> None:
    """Why a process was told to go makes no difference to the state."""
    wishes = (Event.TERMINATE, Event.RESTART, Event.STOP, Event.QUIT, Event.REINITIALISE)
    assert {TABLE[state][event].next_state for state in HAS_PROCESS for event in wishes} == {SlotState.TERMINATING}


def test_rule_3_wishes_are_granted_where_there_is_no_process() -> None:
    """C35, C38: without a process, terminate and shutdown forget at once."""
    for state in WAITS_FOR_START:
        for event in (Event.TERMINATE, Event.STOP, Event.QUIT):
            assert TABLE[state][event] == Step(SlotState.FREE, Action.FORGET)


def test_every_state_is_reached_and_left() -> None:
    """No state is a trap and none is decoration."""
    for state in SlotState:
        assert any(step.next_state is state for _, _, step in STEPS)
        assert any(step.next_state is not state for before, _, step in STEPS if before is state)


def test_every_action_and_rejection_is_used() -> None:
    """The vocabulary holds no dead words."""
    assert {step.action for _, _, step in STEPS} == set(Action)
    assert {cell for row in TABLE.values() for cell in row.values() if isinstance(cell, Rejection)} == set(Rejection)


def test_impossible_events_raise() -> None:
    """A contradiction of our own is an assertion, a late message is none."""
    with pytest.raises(ImpossibleTransition, match="LAUNCH in state STARTED"):
        look_up(SlotState.STARTED, Event.LAUNCH)
    assert look_up(SlotState.STARTED, Event.STARTED) is Rejection.ALREADY_STARTED


@pytest.mark.parametrize("event", [Event.BORN, Event.STARTED, Event.START_FAILED, Event.GONE_TO_RESTART, Event.GONE_FOR_GOOD])
def test_rule_5_nothing_a_process_says_is_impossible(event: Event) -> None:
    """What comes from outside may come at any time and raises in no state."""
    for state in SlotState:
        look_up(state, event)
