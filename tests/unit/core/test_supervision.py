"""The supervision keys in the machine: what follows an end, how long it waits, who ends the host, which signal asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bgworker._core.effects import Effect, Forgotten, Launch, Log, Signal
from bgworker._core.restart import backoff_delay
from bgworker._core.slots import Slot
from bgworker._core.states import ShutdownMode, SlotState
from bgworker._spec import BGW_NEVER_RESTART
from bgworker._supervision import BACKOFF, STOP_SIGNALS, stop_signum

Only = Callable[[list[Effect], type[Any]], Any]
#: Without a jitter, so that waits are exact.
BACK_OFF = {"jitter": 0.0}


def delay_of(bench: Any, slot: Slot) -> float:
    assert slot.restart_at is not None
    return round(slot.restart_at - bench.now, 6)


@pytest.mark.parametrize(
    ("code", "restart_on", "follows"),
    [
        (0, "crash", "unregistered"),
        (3, "crash", "unregistered"),
        (1, "crash", 10.0),
        (2, "crash", 0.0),
        (0, "always", 10.0),
        (3, "always", 10.0),
        (1, "always", 10.0),
        (2, "always", 0.0),
    ],
)
def test_what_follows_which_code(bench: Any, code: int, restart_on: str, follows: object) -> None:
    """C29, C30, C31: the table of docs/supervision.md, with 3 among success_exit_codes."""
    slot = bench.started(restart=10.0, restart_on=restart_on, success_exit_codes=[3])
    bench.now += 30
    bench.exit(slot, code)
    assert (delay_of(bench, slot) if slot.state is SlotState.WAITING_RESTART else "unregistered") == follows


def test_success_code_is_no_crash(bench: Any, only: Only) -> None:
    """C31: a code that the worker calls a success takes nobody down, is not counted as a crash, and reads as a success."""
    slot = bench.started(success_exit_codes=[3], restart=10.0)
    effects = bench.exit(slot, 3, tail="a last warning")
    end = only(effects, Forgotten).last_exit
    assert (end.reason, end.is_success, end.is_crash) == ("exit 3 (success)", True, False)
    assert not only(effects, Forgotten).has_failed
    assert {line.level for line in effects if isinstance(line, Log)} == {"DEBUG"}


def test_success_code_before_the_start_is_none(bench: Any) -> None:
    """C10: a process that ends before it has called the function has not succeeded, whatever its code."""
    slot = bench.born(success_exit_codes=[3], restart=10.0, restart_on="always")
    bench.exit(slot, 3)
    assert slot.last_exit.reason == "failed to start: exit 3"
    assert slot.last_exit.is_failed_start
    assert delay_of(bench, slot) == 10.0


@pytest.mark.parametrize(
    ("code", "signum", "has_started", "kind"),
    [
        (1, 0, False, "failed to start: exit 1"),
        (0, 11, False, "failed to start: signal 11 (Segmentation fault)"),
        (1, 0, True, "exit 1"),
        (2, 0, True, "crash: exit 2"),
        (0, 11, True, "crash: signal 11 (Segmentation fault)"),
    ],
)
def test_first_words_tell_failures_apart(bench: Any, code: int, signum: int, has_started: bool, kind: str) -> None:
    """A failed start, a failure and a crash read differently in the last exit, the reason and the log."""
    slot = bench.started(restart=10.0) if has_started else bench.born(restart=10.0)
    effects = bench.exit(slot, code, signal=signum)
    end = slot.last_exit
    assert end.reason == kind
    assert (end.is_failed_start, end.is_crash) == (kind.startswith("failed"), kind.startswith("crash"))
    assert slot.reason.startswith(f"{kind}; ")
    line = next(line for line in effects if isinstance(line, Log) and line.message.startswith("background worker"))
    assert line.detail.lower().startswith(kind.lower())


def test_backoff_grows_to_its_ceiling(bench: Any) -> None:
    """Opt-in: the first failure waits bgw_restart_time, each further one in a row twice as long, up to the ceiling, for ever."""
    slot = bench.started(restart=2.0, restart_backoff={**BACK_OFF, "ceiling": 20})
    waits = []
    for _ in range(6):
        bench.exit(slot, 1)
        waits.append(delay_of(bench, slot))
        bench.tick(waits[-1])
        bench.bear(slot)
        bench.tell("started", slot)
    assert waits == [2.0, 4.0, 8.0, 16.0, 20.0, 20.0]
    bench.exit(slot, 1)
    assert slot.reason == "exit 1; restarts after 20 s (backoff: 7 failures in a row), try 8"


def test_backoff_counts_every_kind_of_failure(bench: Any) -> None:
    """The first crash is restarted at once as ever (C31); then crashes, failed starts and failed births go on in one row."""
    slot = bench.started(restart=1.0, restart_backoff=BACK_OFF)
    bench.exit(slot, signal=9)
    assert delay_of(bench, slot) == 0.0
    bench.tick()
    bench.bear(slot)
    bench.exit(slot, 1)  # before it started
    assert delay_of(bench, slot) == 2.0
    bench.tick(2.0)
    bench.tell("birth_failed", slot, "no memory")
    assert delay_of(bench, slot) == 4.0
    assert slot.reason == "failed to start: no memory; restarts after 4 s (backoff: 3 failures in a row), try 4"


@pytest.mark.parametrize("end_of_the_row", ["healthy", "success", "restart", "start"])
def test_what_ends_the_row(bench: Any, end_of_the_row: str) -> None:
    """Seconds of running, a success, and an operator who wants it to run make the next failure the first again."""
    slot = bench.started(restart=1.0, restart_on="always", restart_backoff={**BACK_OFF, "healthy_after": 5})
    for _ in range(3):
        bench.exit(slot, 1)
        bench.tick(10.0)
        bench.bear(slot)
        bench.tell("started", slot)
    if end_of_the_row == "success":
        bench.exit(slot, 0)
        assert delay_of(bench, slot) == 1.0
        bench.tick(1.0)
    elif end_of_the_row == "restart":
        bench.want("restart", slot)
        bench.exit(slot, 1)
        bench.tick()
    elif end_of_the_row == "start":
        bench.exit(slot, 1)
        bench.want("start", slot)
        bench.tick()
    if slot.state is SlotState.LAUNCHING:
        bench.bear(slot)
        bench.tell("started", slot)
    bench.now += 5.0 if end_of_the_row == "healthy" else 4.9
    bench.exit(slot, 1)
    assert delay_of(bench, slot) == 1.0


def test_without_the_key_nothing_grows(bench: Any) -> None:
    """C30: bgw_restart_time is kept to the letter, however often the worker fails."""
    slot = bench.started(restart=2.0)
    for _ in range(20):
        bench.exit(slot, 1)
        assert delay_of(bench, slot) == 2.0
        bench.tick(2.0)
        bench.bear(slot)
        bench.tell("started", slot)


def test_jitter_only_adds(make_bench: Callable[..., Any]) -> None:
    """The jitter adds at most its part of a wait, from what the host draws, and nothing to the first wait."""
    bench = make_bench(draw=lambda: 0.5)
    slot = bench.started(restart=10.0, restart_backoff={"jitter": 0.2})
    bench.exit(slot, 1)
    assert delay_of(bench, slot) == 10.0
    bench.tick(10.0)
    bench.bear(slot)
    bench.exit(slot, 1)
    assert delay_of(bench, slot) == 22.0


def test_backoff_of_a_loop_that_lasts_for_years() -> None:
    """However many failures, the wait is the ceiling and takes no time to find."""
    backoff = {key: default for key, (default, _, _) in BACKOFF.items()}
    assert backoff_delay(backoff, 0.0, 10**9, 0.0) == 300.0
    assert backoff_delay({**backoff, "factor": 1.0}, 2.0, 10**9, 0.0) == 2.0
    assert backoff_delay({**backoff, "factor": 1.0 + 1e-12}, 2.0, 10**9, 0.0) == 2.0


@pytest.mark.parametrize(
    ("end", "has_failed"),
    [
        ({"code": 0}, False),
        ({"code": 3}, False),
        ({"code": 1}, True),
        ({"code": 2}, True),
        ({"signal": 9}, True),
    ],
)
def test_failed_for_good(bench: Any, only: Only, end: dict[str, int], has_failed: bool) -> None:
    """The end of a worker that is never restarted is a failure unless it is a success."""
    slot = bench.started(essential=True, success_exit_codes=[3])
    assert only(bench.exit(slot, end.get("code", 0), signal=end.get("signal", 0)), Forgotten).has_failed is has_failed


def test_failed_start_for_good(bench: Any, only: Only) -> None:
    """A worker that is never restarted and cannot start, or was never born, has failed for good."""
    slot = bench.born()
    bench.tell("start_failed", slot, "no function")
    assert only(bench.exit(slot, 1), Forgotten).has_failed
    assert only(bench.tell("birth_failed", bench.launched(), "no memory"), Forgotten).has_failed


def test_wanted_ends_are_no_failures(bench: Any, only: Only) -> None:
    """C35, C39: what was terminated, or stopped with the host, has not failed, whatever its exit code."""
    slot, other = bench.started(), bench.started()
    bench.want("terminate", slot)
    assert not only(bench.exit(slot, 1), Forgotten).has_failed
    bench.call("begin_shutdown", ShutdownMode.FAST)
    assert not only(bench.exit(other, 9), Forgotten).has_failed


@pytest.mark.parametrize("name", STOP_SIGNALS)
def test_stop_signal(bench: Any, only: Only, name: str) -> None:
    """A running worker is asked with its own signal, alone, and killed with its session after its stop timeout."""
    slot = bench.started(stop_signal=f"SIG{name}", stop_timeout=3.0, restart=BGW_NEVER_RESTART)
    signal = only(bench.want("terminate", slot), Signal)
    assert (signal.signum, signal.whole_session) == (stop_signum(name), False)
    effects = bench.tick(3.0)
    assert (only(effects, Signal).signum, only(effects, Signal).whole_session) == (9, True)
    assert f"does not notice SIG{name}." in only(effects, Log).hint


def test_stop_signal_before_the_start(bench: Any, only: Only) -> None:
    """A process that has not called the function yet gets SIGTERM, which is what the runtime listens for."""
    slot = bench.born(stop_signal="USR2")
    assert only(bench.want("terminate", slot), Signal).signum == 15


def test_start_timeout_of_its_own(bench: Any, only: Only) -> None:
    """A worker's start_timeout takes the place of the host's, and the failure names it."""
    slow, quick = bench.launched(restart=5.0), bench.launched(start_timeout=2.5, restart=5.0)
    bench.bear(slow)
    bench.bear(quick)
    assert only(bench.tick(2.5), Signal).slotno == quick.slotno
    assert quick.reason.startswith("failed to start: it did not start within 2.5 s")
    assert slow.state is SlotState.LAUNCHING


def test_a_failing_worker_starves_nobody(make_bench: Callable[..., Any]) -> None:
    """C09: a worker without a restart time that fails at once takes a launch a second, and the others are launched on time."""
    bench = make_bench()
    slot = bench.started(restart=0.0)
    begun, launches = bench.now, 0
    while bench.now < begun + 60:
        if slot.state is SlotState.STARTED:
            bench.exit(slot, 1)
        bench.tick(max(bench.machine.next_deadline() - bench.now, 0.0))
        launches += sum(isinstance(effect, Launch) for effect in bench.effects)
        bench.effects.clear()
        bench.bear(slot)
        bench.tell("started", slot)
    assert launches < 70
    bench.exit(slot, 1)
    assert "crash-loop guard" in slot.reason
