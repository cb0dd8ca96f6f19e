"""_core/restart.py: what follows the end of a life."""

from __future__ import annotations

import pytest

from bgworker._core.exits import read_exit
from bgworker._core.record import Slot
from bgworker._core.restart import after_exit, guard_delay
from bgworker._core.states import Intent, Origin, SlotState
from bgworker._spec import BGW_NEVER_RESTART

NOW = 500.0


@pytest.fixture
def verdict_of(make_worker):
    """Return the verdict on a life of ten seconds that started as soon as it was launched, unless told otherwise."""

    def verdict_of(
        code=0,
        signal=0,
        *,
        restart=10.0,
        intent=None,
        has_started=True,
        age=10.0,
        quick=0,
        stopping=False,
        start_took=0.0,
        tail="",
        cause="",
    ):
        slot = Slot(0, 1, SlotState.STARTED, make_worker(restart=restart), Origin.DYNAMIC, pid=9, attempt=2)
        slot.launched_at = NOW - age - start_took
        slot.started_at = NOW - age if has_started else None
        slot.intent, slot.cause, slot.quick_exits = intent, cause, quick
        status = signal or code << 8
        end = read_exit(status, NOW, tail, failure="", has_started=has_started, was_requested=intent is not None)
        return after_exit(slot, end, NOW, is_shutting_down=stopping)

    return verdict_of


def test_guard_delays_come_as_designed() -> None:
    """C09: three quick exits pass, then 0.1 s doubles up to a second and stays there for ever."""
    assert [guard_delay(n) for n in range(10)] == [0, 0, 0, 0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert guard_delay(10**9) == 1.0


def test_exit_0_is_forgotten(verdict_of) -> None:
    """C29: exit code 0 unregisters, whatever the restart time is."""
    verdict = verdict_of(0, restart=0.0)
    assert (verdict.restarts, verdict.reason) == (False, "exit 0")


def test_never_is_forgotten(verdict_of) -> None:
    """C29: a worker that never restarts is forgotten at any exit, a crash included (C31)."""
    assert not verdict_of(1, restart=BGW_NEVER_RESTART).restarts
    verdict = verdict_of(signal=11, restart=BGW_NEVER_RESTART)
    assert not verdict.restarts
    assert verdict.reason == ("crash: signal 11 (Segmentation fault); not restarted because bgw_restart_time is BGW_NEVER_RESTART")


@pytest.mark.parametrize("interval", [0.0, 0.25, 1.0, 10.0, 86_400.0])
def test_exit_1_waits_the_restart_time(verdict_of, interval: float) -> None:
    """C30: exit code 1 restarts after bgw_restart_time, to the letter."""
    verdict = verdict_of(1, restart=interval)
    assert (verdict.restarts, verdict.delay) == (True, interval)


@pytest.mark.parametrize("end", [{"code": 2}, {"code": 255}, {"signal": 9}, {"signal": 6}])
def test_crash_restarts_at_once(verdict_of, end) -> None:
    """C31: a crash restarts immediately, regardless of bgw_restart_time."""
    verdict = verdict_of(**end, restart=3600.0)
    assert (verdict.restarts, verdict.delay) == (True, 0.0)
    assert verdict.reason.startswith("crash: ")


@pytest.mark.parametrize("end", [{"code": 0}, {"code": 1}, {"code": 7}, {"signal": 15}])
def test_requested_exits_follow_the_intent(verdict_of, end) -> None:
    """C29: an exit the host asked for follows its intent and never the code, also where the rule says never or 0."""
    restart = verdict_of(**end, restart=BGW_NEVER_RESTART, intent=Intent.RESTART, cause="restart requested")
    assert (restart.restarts, restart.delay) == (True, 0.0)
    assert not verdict_of(**end, intent=Intent.STOP).restarts
    assert not verdict_of(**end, intent=Intent.FORGET).restarts


@pytest.mark.parametrize("end", [{"code": 0}, {"code": 1}, {"code": 3}, {"signal": 11}])
def test_failed_start_waits_the_restart_time(verdict_of, end) -> None:
    """An end before the start is a failed start: a timer, whatever the code; never means forgotten."""
    verdict = verdict_of(**end, has_started=False, restart=10.0)
    assert (verdict.restarts, verdict.delay) == (True, 10.0)
    assert verdict.reason.startswith("failed to start: ")
    verdict = verdict_of(**end, has_started=False, restart=BGW_NEVER_RESTART)
    assert not verdict.restarts
    assert verdict.reason.startswith("failed to start: ")


@pytest.mark.parametrize("end", [{"code": 1}, {"signal": 9}, {"code": 1, "intent": Intent.RESTART, "cause": "restart requested"}])
def test_nothing_restarts_while_the_host_shuts_down(verdict_of, end) -> None:
    """C39: a life that ends during a shutdown has no successor, whatever was wanted before."""
    verdict = verdict_of(**end, stopping=True)
    assert not verdict.restarts
    assert verdict.reason.endswith("not restarted because the host shuts down")


def test_guard_only_stretches_short_intervals(verdict_of) -> None:
    """C09: the guard may delay intervals under a second; one of a second or more stays as it is."""
    assert verdict_of(1, restart=0.0, age=0.1, quick=9).delay == 1.0
    assert verdict_of(1, restart=0.3, age=0.1, quick=3).delay == 0.3
    assert verdict_of(1, restart=0.3, age=0.1, quick=5).delay == 0.4
    assert verdict_of(1, restart=1.0, age=0.1, quick=1000).delay == 1.0
    assert verdict_of(1, restart=7.0, age=0.1, quick=1000).delay == 7.0
    # The restart after a crash is immediate, so the guard applies whatever bgw_restart_time says.
    assert verdict_of(2, restart=7.0, age=0.1, quick=4).delay == 0.2


def test_guard_counts_only_quick_exits_in_a_row(verdict_of) -> None:
    """A life of a second wipes the count, a shorter one adds to it."""
    assert verdict_of(1, restart=0.0, age=0.99, quick=6).quick_exits == 7
    assert verdict_of(1, restart=0.0, age=1.0, quick=6).quick_exits == 0
    assert verdict_of(1, restart=0.0, age=1.0, quick=6).delay == 0.0


def test_guard_counts_from_the_start_not_the_launch(verdict_of) -> None:
    """Design 8.8: a worker that takes long to import and then ends at once is in a loop all the same."""
    assert verdict_of(1, restart=0.0, age=0.1, start_took=3.0, quick=4).delay == 0.2
    assert verdict_of(1, restart=0.0, age=0.1, start_took=3.0, has_started=False, quick=4).delay == 0.0


def test_reason_says_what_the_guard_did(verdict_of) -> None:
    """Design 8.8: the delay of the guard is visible in the reason, and only when there is one."""
    reason = verdict_of(1, restart=0.0, age=0.1, quick=4).reason
    assert reason == "exit 1; restarts after 0.2 s (crash-loop guard: 5 ends in a row within 1 s of the start), try 3"
    assert "guard" not in verdict_of(1, restart=0.3, age=0.1, quick=4).reason


def test_reason_does_not_count_down(verdict_of) -> None:
    """The reason of a wait is true for as long as it lasts."""
    assert verdict_of(1, tail="connection refused").reason == "exit 1: connection refused; restarts after 10 s, try 3"
    assert verdict_of(1, restart=0.0).reason == "exit 1; restarts at once, try 3"


def test_birth_that_failed_waits_at_least_a_second(make_worker) -> None:
    """A birth the host could not bring about is retried after the restart time, and never sooner than in a second."""
    for restart, delay in ((0.0, 1.0), (0.5, 1.0), (10.0, 10.0)):
        slot = Slot(0, 1, SlotState.LAUNCHING, make_worker(restart=restart), attempt=1, launched_at=NOW)
        slot.failure = "failed to start: no memory"
        verdict = after_exit(slot, None, NOW, is_shutting_down=False)
        assert (verdict.restarts, verdict.delay) == (True, delay)
        assert verdict.reason == f"failed to start: no memory; restarts after {delay:g} s, try 2"
