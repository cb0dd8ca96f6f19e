"""Totality: every state of a slot meets every event, in the table and in the machine itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from bgworker._core.effects import Effect, Log
from bgworker._core.slots import Slot, SlotMachine
from bgworker._core.states import Origin, Phase, ShutdownMode, SlotState
from bgworker._core.table import TABLE, Event, Rejection, Step
from bgworker._spec import BackgroundWorker, sanity_check

CELLS = [(state, event) for state in SlotState for event in Event]


@pytest.mark.parametrize(("state", "event"), CELLS, ids=lambda value: value.name)
def test_every_cell_is_a_step_or_a_named_rejection(state: SlotState, event: Event) -> None:
    """No state leaves an event unanswered; there is neither a default nor a gap."""
    assert isinstance(TABLE[state][event], Step | Rejection)


def test_table_has_no_other_cells() -> None:
    """The table holds these states and events and nothing that no test walks."""
    assert set(TABLE) == set(SlotState)
    assert all(set(row) == set(Event) for row in TABLE.values())


def test_both_ends_of_a_process_are_met_alike() -> None:
    """The machine asks the table whether an end is possible before it decides which one it is; the answers must agree."""
    for row in TABLE.values():
        good, restart = row[Event.GONE_FOR_GOOD], row[Event.GONE_TO_RESTART]
        assert isinstance(good, Step) is isinstance(restart, Step)
        assert isinstance(good, Step) or good is restart


NOW = 50.0


def in_state(state: SlotState) -> tuple[SlotMachine, Slot]:
    """Return a machine whose one slot was brought into the state by the public interface."""
    machine = SlotMachine(1)
    worker = sanity_check(
        BackgroundWorker(bgw_name="w", bgw_library_name="l", bgw_function_name="f", bgw_restart_time=5.0), is_dynamic=True
    )
    worker = replace(worker, singleton=True)
    slot, _ = machine.register(worker, Origin.STATIC, NOW)
    if state is SlotState.FREE:
        machine.terminate(0, 1, NOW)
    if state in (SlotState.FREE, SlotState.NOT_YET_STARTED):
        return machine, slot
    machine.set_phase(Phase.RECOVERY_FINISHED, "", NOW)
    machine.tick(NOW)
    if state is not SlotState.LAUNCHING:
        machine.born(0, 1, 1, 77, NOW)
        machine.started(0, 1, 1, NOW)
    if state is SlotState.WAITING_RESTART:
        machine.exited(0, 1, 1, 1 << 8, NOW)
    if state is SlotState.TERMINATING:
        machine.terminate(0, 1, NOW)
    return machine, slot


#: Every call the host can make about a slot, as it would make it for its current registration and launch.
CALLS: dict[str, Callable[[SlotMachine, Slot], list[Effect]]] = {
    "born": lambda m, s: m.born(0, s.generation, s.attempt, 78, NOW),
    "lost": lambda m, s: m.lost(0, s.generation, s.attempt, 9, NOW),
    "birth_failed": lambda m, s: m.birth_failed(0, s.generation, s.attempt, "error", NOW),
    "started": lambda m, s: m.started(0, s.generation, s.attempt, NOW),
    "start_failed": lambda m, s: m.start_failed(0, s.generation, s.attempt, "error", NOW),
    "waits": lambda m, s: m.waits(0, s.generation, s.attempt, "waits for another", NOW),
    "ready": lambda m, s: m.ready(0, s.generation, s.attempt, NOW),
    "moved": lambda m, s: m.moved(0, s.generation, s.attempt, False, NOW),
    "recycle": lambda m, s: m.recycle(0, s.generation, "recycled: x", NOW),
    "exited 0": lambda m, s: m.exited(0, s.generation, s.attempt, 0, NOW),
    "exited 1": lambda m, s: m.exited(0, s.generation, s.attempt, 1 << 8, NOW),
    "crashed": lambda m, s: m.exited(0, s.generation, s.attempt, 11, NOW),
    "terminate": lambda m, s: m.terminate(0, s.generation, NOW),
    "restart": lambda m, s: m.restart(0, s.generation, NOW),
    "start": lambda m, s: m.start(0, s.generation, NOW),
    "replace": lambda m, s: m.replace(0, s.generation, s.worker, NOW) if s.worker else [],
    "smart": lambda m, s: m.begin_shutdown(ShutdownMode.SMART, NOW),
    "fast": lambda m, s: m.begin_shutdown(ShutdownMode.FAST, NOW),
    "immediate": lambda m, s: m.begin_shutdown(ShutdownMode.IMMEDIATE, NOW),
    "tick": lambda m, s: m.tick(NOW + 1e6),
}


@pytest.mark.parametrize("state", list(SlotState), ids=lambda state: state.name)
@pytest.mark.parametrize("call", CALLS)
def test_every_call_is_answered_in_every_state(state: SlotState, call: str) -> None:
    """No call raises in any state; whether it changes the state is what the table says it does."""
    machine, slot = in_state(state)
    assert slot.state is state
    before = repr(slot)
    effects = CALLS[call](machine, slot)
    allowed = {step.next_state for step in TABLE[state].values() if isinstance(step, Step)} | {state}
    assert slot.state in allowed
    if not [effect for effect in effects if not isinstance(effect, Log)] and call not in ("tick", "started", "replace"):
        assert repr(slot) == before, "a rejected event changes nothing"
