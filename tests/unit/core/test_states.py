"""_core/states.py: the vocabulary is complete and ordered as the rules need it."""

from __future__ import annotations

from bgworker._core.states import HAS_PROCESS, NEEDED_PHASE, WAITS_FOR_START, Intent, Phase, ShutdownMode, SlotState
from bgworker._spec import BgWorkerStartTime


def test_every_start_time_waits_for_its_own_phase() -> None:
    """C07: each bgw_start_time has a phase, and they come in the order of the chapter."""
    assert [NEEDED_PHASE[time] for time in BgWorkerStartTime] == [Phase.STARTING, Phase.CONSISTENT, Phase.RECOVERY_FINISHED]
    assert Phase.STARTING < Phase.CONSISTENT < Phase.RECOVERY_FINISHED


def test_states_fall_into_three_kinds() -> None:
    """Each state is free, or waits for its start, or has a process, and never two of these."""
    kinds = [{SlotState.FREE}, set(WAITS_FOR_START), set(HAS_PROCESS)]
    assert set().union(*kinds) == set(SlotState)
    assert sum(len(kind) for kind in kinds) == len(SlotState)


def test_intents_and_modes_are_ordered_by_strength() -> None:
    """Terminate beats stop beats restart, and each shutdown mode is stricter than the one before."""
    assert Intent.FORGET > Intent.STOP > Intent.RESTART
    assert ShutdownMode.IMMEDIATE > ShutdownMode.FAST > ShutdownMode.SMART
