"""_core/actions.py: what single actions leave behind, where the machine's own tests look elsewhere."""

from __future__ import annotations

import pytest

from bgworker._core import reasons
from bgworker._core.actions import ACTIONS, ANSWER_TIMEOUT, QUIT_TIMEOUT, Facts, who
from bgworker._core.effects import Abandon, Publish, Signal
from bgworker._core.record import Slot
from bgworker._core.states import SIGQUIT, SIGTERM, Intent, SlotState
from bgworker._core.table import Action


@pytest.fixture
def running(make_worker) -> Slot:
    """Return a slot in STARTED."""
    return Slot(2, 5, SlotState.STARTED, make_worker("w"), pid=77, attempt=1, started_at=1.0)


def go(intent: Intent = Intent.STOP, cause: str = "a cause", timeout: float = 3.0) -> Facts:
    return Facts(10.0, cause, intent=intent, timeout=timeout)


def test_every_action_has_a_function() -> None:
    """No row of the table can name an action that nobody carries out."""
    assert set(ACTIONS) == set(Action)
    assert len(set(ACTIONS.values())) == len(Action)


def test_terminate_asks_the_worker_alone(running: Slot) -> None:
    """C35: the first step is SIGTERM to the worker, not to what it started."""
    effects = ACTIONS[Action.TERMINATE](running, go())
    assert effects == [Publish(2), Signal(2, 5, 77, SIGTERM, whole_session=False)]
    assert (running.kill_at, running.intent) == (13.0, Intent.STOP)


def test_quit_tells_the_whole_session(running: Slot) -> None:
    """C39: immediate is SIGQUIT to everything the worker started."""
    effects = ACTIONS[Action.QUIT](running, go(timeout=QUIT_TIMEOUT))
    assert effects == [Publish(2), Signal(2, 5, 77, SIGQUIT, whole_session=True)]
    assert running.kill_at == 15.0


def test_quit_keeps_a_nearer_deadline(running: Slot) -> None:
    """A stricter mode never grants more time than the worker had left."""
    running.state, running.kill_at, running.intent = SlotState.TERMINATING, 12.0, Intent.STOP
    ACTIONS[Action.QUIT](running, go(timeout=5.0))
    assert running.kill_at == 12.0
    running.kill_at = 500.0
    ACTIONS[Action.QUIT](running, go(timeout=5.0))
    assert running.kill_at == 15.0


def test_quit_sends_nothing_after_sigkill(running: Slot) -> None:
    """After SIGKILL there is nothing stronger; asking again brings no deadline back."""
    running.state, running.kill_at, running.intent = SlotState.TERMINATING, None, Intent.FORGET
    assert ACTIONS[Action.QUIT](running, go()) == []
    assert running.kill_at is None


def test_birth_in_flight_is_called_off(running: Slot) -> None:
    """Without a pid there is nobody to signal; the wait for the answer has a bound that no stop_timeout stretches."""
    running.state, running.pid, running.kill_at = SlotState.LAUNCHING, None, 11.0
    assert ACTIONS[Action.TERMINATE](running, go(timeout=3600.0)) == [Publish(2), Abandon(2, 5, 1)]
    assert running.kill_at == 10.0 + ANSWER_TIMEOUT


@pytest.mark.parametrize("first", list(Intent))
@pytest.mark.parametrize("second", list(Intent))
def test_the_stronger_intent_wins(running: Slot, first: Intent, second: Intent) -> None:
    """C35: in whatever order wishes come, terminate beats stop beats restart."""
    ACTIONS[Action.TERMINATE](running, go(first, "first"))
    running.state = SlotState.TERMINATING
    effects = ACTIONS[Action.NOTE_INTENT](running, go(second, "second"))
    assert running.intent is max(first, second)
    assert running.cause == ("second" if second > first else "first")
    assert effects == ([Publish(2)] if second > first else [])


def test_operator_has_the_last_word(running: Slot) -> None:
    """Design 8.6: terminated by both, the worker is down because of the operator, in either order; and scaled away is stronger."""
    for weaker, stronger in ((reasons.BY_HANDLE, reasons.BY_OPERATOR), (reasons.BY_OPERATOR, reasons.BY_SCALE)):
        for causes in ((weaker, stronger), (stronger, weaker)):
            running.state, running.intent = SlotState.STARTED, None
            ACTIONS[Action.TERMINATE](running, go(Intent.FORGET, causes[0]))
            running.state = SlotState.TERMINATING
            ACTIONS[Action.NOTE_INTENT](running, go(Intent.FORGET, causes[1]))
            assert running.cause == stronger


def test_who_names_the_pid_if_it_is_known(running: Slot) -> None:
    """Log lines name a worker the same way everywhere."""
    assert who(running) == 'background worker "w" (PID 77)'
    running.pid = None
    assert who(running) == 'background worker "w"'
