"""_core/reasons.py: every sentence has a cause and a next act."""

from __future__ import annotations

import pytest

from bgworker._core import reasons
from bgworker._core.record import Slot
from bgworker._core.states import Intent, Origin, Phase, SlotState
from bgworker._spec import BackgroundWorker


@pytest.mark.parametrize(
    ("needed", "phase", "detail", "expected"),
    [
        (2, 0, "connection refused", "waits for the database to be read-write: connection refused; starts when it is"),
        (2, 0, "Connection refused.", "waits for the database to be read-write: Connection refused; starts when it is"),
        (2, 0, "", "waits for the database to be read-write: it is starting; starts when it is"),
        (2, 1, "", "waits for the database to be read-write: it is a standby; starts on promotion"),
        (1, 0, "no route", "waits for the database to accept connections: no route; starts when it does"),
    ],
)
def test_waits_for_phase(needed: int, phase: int, detail: str, expected: str) -> None:
    """C07: a worker that waits for the database says for what, why, and what ends the wait."""
    assert reasons.waits_for_phase(Phase(needed), Phase(phase), detail) == expected


def test_leaving_names_each_step_of_the_ladder() -> None:
    """A slot that is to go says who wanted it, what comes if it does not, and what comes then."""
    slot = Slot(0, 1, SlotState.TERMINATING, pid=5, kill_at=10.0, intent=Intent.RESTART)
    slot.cause, slot.grace = reasons.BY_RESTART, 5.0
    asked = "restart requested; its process was told to go and is killed if still there after 5 s, then starts again"
    assert reasons.leaving(slot) == asked
    slot.kill_at = None
    assert reasons.leaving(slot) == "restart requested; its process was killed and is waited for, then starts again"
    slot.intent, slot.cause, slot.pid, slot.kill_at = Intent.FORGET, reasons.BY_HANDLE, None, 10.0
    assert reasons.leaving(slot).startswith("terminated through its handle; its birth was called off")


def test_last_word_on_a_terminated_worker() -> None:
    """Design 8.6: a static worker that an operator terminated or scaled away says how it comes back; nobody else does."""
    static, dynamic = Slot(0, 1, origin=Origin.STATIC), Slot(1, 1, origin=Origin.DYNAMIC)
    assert reasons.after_termination("x", static, reasons.BY_OPERATOR) == (
        "x; stays down until it is started by name or the host restarts"
    )
    assert reasons.after_termination("x", dynamic, reasons.BY_OPERATOR) == "x"
    assert reasons.after_termination("x", static, reasons.BY_HANDLE) == "x"
    static.worker = BackgroundWorker(bgw_name="web-3", bgw_library_name="shop", bgw_function_name="web", instance=3)
    assert reasons.after_termination("x", static, reasons.BY_SCALE) == 'x; comes back when "web" is scaled to 3 or more'


def test_awaited_names_a_bounded_number() -> None:
    """C39: a smart shutdown can say whom it waits for, and stays readable with many."""
    assert reasons.awaited(0, []) == ""
    assert reasons.awaited(1, []) == "1 live handle of connections"
    assert reasons.awaited(2, ['"a"']) == '2 live handles of connections and background worker "a"'
    assert reasons.awaited(0, ["a"] * 9) == "background workers a, a, a, a, a, others"


def test_sentence() -> None:
    """A reason becomes a full sentence where a log line needs one."""
    assert reasons.sentence("exit 1; restarts at once") == "Exit 1; restarts at once."
    assert reasons.sentence("") == ""
