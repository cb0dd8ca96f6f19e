"""_core/timeouts.py in the machine, watchdog, max_age and max_memory: deadlines of workers that run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bgworker._core.effects import Effect, Forgotten, Log, Signal
from bgworker._core.states import ShutdownMode, SlotState

Only = Callable[[list[Effect], type[Any]], Any]


def test_worker_that_hangs_is_dumped_and_told_to_go(bench: Any) -> None:
    """Nothing heard for the watchdog and its slack: SIGTRAP for the stack, then the stop ladder, and the log says so."""
    slot = bench.started(watchdog=20.0, stop_timeout=3.0, restart=7.0)
    assert not bench.tick(24.9)
    effects = bench.tick(0.2)
    assert [(s.signum, s.whole_session) for s in effects if isinstance(s, Signal)] == [(5, False), (15, False)]
    (line,) = [line for line in effects if isinstance(line, Log)]
    assert (line.level, line.message) == ("WARNING", 'background worker "w" (PID 101) is stuck: no progress for 20 s')
    assert slot.reason.startswith("stuck: no progress for 20 s; its process was told to go and is killed if still there after 3 s")
    assert slot.reason.endswith(", then counts as a failure")
    (kill,) = [s for s in bench.tick(3.0) if isinstance(s, Signal)]
    assert (kill.signum, kill.whole_session) == (9, True)
    bench.exit(slot, signal=9)
    assert slot.reason == "stuck: no progress for 20 s; restarts after 7 s, try 2"
    assert (slot.last_exit.reason, slot.last_exit.is_crash) == ("stuck: no progress for 20 s", False)


@pytest.mark.parametrize("end", [{"code": 0}, {"code": 1}, {"signal": 9}, {"code": 2}])
def test_end_of_a_stuck_worker_is_a_failure(bench: Any, only: Only, end: dict[str, int]) -> None:
    """However it then goes, also with a success, it failed: restarted by its time, or over for good; never a crash (C31)."""
    slot, never = bench.started(watchdog=1.0, restart=7.0), bench.started(watchdog=1.0)
    bench.tick(2.0)
    bench.exit(slot, end.get("code", 0), signal=end.get("signal", 0))
    assert (slot.state, slot.restart_at) == (SlotState.WAITING_RESTART, bench.now + 7.0)
    assert only(bench.exit(never, end.get("code", 0), signal=end.get("signal", 0)), Forgotten).has_failed


def test_stuck_counts_for_the_backoff(bench: Any) -> None:
    """A worker that hangs again and again is slowed down like one that fails."""
    slot = bench.started(watchdog=1.0, restart=2.0, restart_backoff={"jitter": 0.0})
    for wait in (2.0, 4.0, 8.0):
        bench.tick(1.3)
        bench.exit(slot, 1)
        assert slot.restart_at == pytest.approx(bench.now + wait)
        bench.tick(wait)
        bench.bear(slot)
        bench.tell("started", slot)


def test_progress_puts_the_watchdog_off_and_a_wait_stops_it(bench: Any) -> None:
    """What moves is not stuck, and what waits on its latch may do so for ever; after the wait the time begins anew."""
    slot = bench.started(watchdog=4.0)
    for _ in range(5):
        bench.tick(4.5)
        bench.tell("moved", slot, False)
    bench.tell("moved", slot, True)
    assert bench.machine.next_deadline() is None
    assert not bench.tick(1e6)
    bench.tell("moved", slot, False)
    assert bench.machine.next_deadline() == bench.now + 5.0
    bench.tick(5.0)
    assert slot.state is SlotState.TERMINATING


def test_without_the_keys_there_is_no_deadline(bench: Any) -> None:
    """A worker without these keys costs the host no wake-up, and cannot give itself one."""
    slot = bench.started()
    assert bench.machine.next_deadline() is None
    bench.tell("moved", slot, False)
    assert bench.machine.next_deadline() is None


def test_terminate_of_a_stuck_worker_stands(bench: Any, only: Only) -> None:
    """C35: terminate beats the restart that would have followed."""
    slot = bench.started(watchdog=1.0, restart=2.0)
    bench.tick(2.0)
    bench.want("terminate", slot)
    assert not only(bench.exit(slot, 1), Forgotten).has_failed


def test_max_age_is_a_restart(make_bench: Callable[..., Any]) -> None:
    """Design 8.6: when its age is reached, and what the host drew is over, it goes as on a restart, which is no failure."""
    bench = make_bench(draw=lambda: 0.5)
    slot = bench.started(max_age=100.0, restart=3600.0)
    assert not bench.tick(104.9)
    (ask,) = [s for s in bench.tick(0.2) if isinstance(s, Signal)]
    assert ask.signum == 15
    assert slot.reason.startswith("recycled: it has run for its max_age, 100 s; ")
    bench.exit(slot, 1)
    assert (slot.restart_at, slot.failures, slot.last_exit.was_requested) == (bench.now, 0, True)
    bench.start_again(slot)
    assert slot.recycle_at == bench.now + 105.0


def test_recycling_concerns_running_workers_of_a_running_host(bench: Any) -> None:
    """A worker that goes already, or whose host waits for its end, gets no new process; and nobody asks twice."""
    slot, other = bench.started(max_age=10.0), bench.started(max_age=10.0)
    bench.want("terminate", slot)
    assert bench.want("recycle", slot, "recycled: x") == []
    bench.call("begin_shutdown", ShutdownMode.SMART)
    assert not [effect for effect in bench.tick(20.0) if isinstance(effect, Signal) and effect.pid == other.pid]
    assert other.state is SlotState.STARTED
    assert bench.machine.next_deadline() is None
