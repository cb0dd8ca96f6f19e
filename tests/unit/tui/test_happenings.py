"""The event lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bgworker.tui.happenings import event_line


@pytest.fixture
def exited(at: Callable[[float], str]) -> dict[str, Any]:
    return {
        "event": "exited",
        "at": at(0),
        "slot": 3,
        "generation": 2,
        "bgw_name": "order-drain",
        "bgw_type": "order-drain",
        "pid": 5120,
        "state": "waiting_restart",
        "last_exit": {"code": 1, "signal": None, "at": at(0), "reason": "exit 1: connection refused"},
        "message": "order-drain (5120) ended: exit 1: connection refused",
    }


def test_an_exit_says_how_long_why_and_what_next(exited: Any, make_status: Any, make_slot: Any) -> None:
    """One line: who, how it ended and after how long, why, when it comes back and which try that is."""
    before = make_status(make_slot(3, "order-drain", generation=2, age=0.8, restarts=1))
    after = make_status(make_slot(3, "order-drain", generation=2, state="waiting_restart", restart_in=10, restarts=1))
    line = event_line(exited, before, after)
    assert line[8:] == " order-drain (5120) exited with code 1 after 0.8s: connection refused; restart in 10s, try 3"
    assert line[2] == line[5] == ":"


def test_a_life_that_no_status_saw(exited: Any, at: Callable[[float], str]) -> None:
    """How long it lasted is told even if it began and ended between two pictures."""
    assert "exited with code 1 after 0.2s: connection refused" in event_line(exited, None, None, at(-0.2))


def test_an_exit_by_signal(exited: Any, make_status: Any) -> None:
    """A signal is named, and without a status around it the line says what the event says."""
    exited["last_exit"] = {"code": None, "signal": 9, "at": exited["at"], "reason": "signal 9 (Killed)"}
    assert event_line(exited, None, None)[9:] == "order-drain (5120) was ended by signal 9 (Killed)"


def test_a_crash_and_a_success_with_a_code(exited: Any) -> None:
    """C31: the line says "crashed" of a crash, and of a success that it was one."""
    exited["last_exit"] = {"code": None, "signal": 9, "at": exited["at"], "reason": "crash: signal 9 (Killed)"}
    assert event_line(exited, None, None)[9:] == "order-drain (5120) crashed: signal 9 (Killed)"
    exited["last_exit"] = {"code": 3, "signal": None, "at": exited["at"], "reason": "exit 3 (success)"}
    assert event_line(exited, None, None)[9:] == "order-drain (5120) exited with code 3 (success)"


def test_a_failed_start(exited: Any) -> None:
    """A failed start is called one."""
    exited["last_exit"]["reason"] = 'failed to start: function "nope" not found'
    assert event_line(exited, None, None)[9:] == 'order-drain (5120) failed to start: function "nope" not found'


def test_another_generation_is_another_worker(exited: Any, make_status: Any, make_slot: Any) -> None:
    """Facts of a worker that took the slot since are not mixed in."""
    other = make_status(make_slot(3, "other", generation=3, state="waiting_restart", restart_in=10))
    assert "restart" not in event_line(exited, other, other)


def test_one_line_for_an_end_for_good(exited: Any) -> None:
    """The exit of a worker that is over is told once, by the event that also says why it stays down."""
    exited["state"] = "finished"
    assert event_line(exited, None, None) == ""
    state = {**exited, "event": "state", "pid": None, "message": "order-drain is finished: exit 0"}
    assert event_line(state, None, None)[9:] == "order-drain is finished: exit 0"


def test_texts_of_events_are_inert(exited: Any) -> None:
    """T61: a name or a message in an event carries no control character."""
    exited["bgw_name"] = exited["last_exit"]["reason"] = "a\x1b[2Jb\n"
    assert "\x1b" not in event_line(exited, None, None)
    assert "\n" not in event_line({"event": "host", "at": None, "message": "x\ny\x07"}, None, None)


def test_starts_and_the_host(exited: Any) -> None:
    """A start is who and that; what the host says of itself is its own sentence."""
    assert event_line({**exited, "event": "started"}, None, None)[9:] == "order-drain (5120) started"
    assert event_line({"event": "host", "at": exited["at"], "message": "host is stopping"}, None, None)[9:] == "host is stopping"
