"""_core/shutdown.py in the machine: how it stops, in three modes."""

from __future__ import annotations

import pytest

from bgworker._core.effects import Abandon, Forgotten, Launch, Log, Signal
from bgworker._core.states import SIGKILL, SIGQUIT, SIGTERM, ShutdownMode, SlotState


def signals(effects) -> list[tuple[int, int]]:
    return [(effect.slotno, effect.signum) for effect in effects if isinstance(effect, Signal)]


def test_fast_tells_everybody(bench) -> None:
    """C39: fast is SIGTERM to all, then SIGKILL at each worker's own stop timeout."""
    slow, quick = bench.started(stop_timeout=9.0, restart=1.0), bench.started(stop_timeout=2.0)
    born = bench.born()
    assert signals(bench.call("begin_shutdown", ShutdownMode.FAST)) == [(0, SIGTERM), (1, SIGTERM), (2, SIGTERM)]
    assert not bench.machine.is_drained
    assert signals(bench.tick(2.0)) == [(quick.slotno, SIGKILL)]
    assert signals(bench.tick(3.0)) == [(born.slotno, SIGKILL)]
    assert signals(bench.tick(4.0)) == [(slow.slotno, SIGKILL)]
    for slot in (slow, quick, born):
        bench.exit(slot, signal=9)
    assert bench.machine.is_drained
    assert bench.machine.next_deadline() is None


@pytest.mark.parametrize("mode", list(ShutdownMode))
def test_workers_without_a_process_are_forgotten(bench, mode: ShutdownMode) -> None:
    """C38: a worker that waits for its start when the host shuts down is told so at once, in every mode."""
    failed = bench.started("b", restart=60.0)
    bench.exit(failed, 1, tail="connection refused")
    bench.register("a")
    effects = bench.call("begin_shutdown", mode)
    assert {effect.worker.bgw_name: effect.reason for effect in effects if isinstance(effect, Forgotten)} == {
        "b": "exit 1: connection refused; not restarted because the host shuts down",
        "a": "not started because the host shuts down",
    }
    assert bench.machine.is_drained
    assert bench.machine.tick(bench.now + 1e6) == []


@pytest.mark.parametrize("mode", [ShutdownMode.FAST, ShutdownMode.IMMEDIATE])
def test_births_in_flight_are_called_off(bench, mode: ShutdownMode) -> None:
    """C39: a launch under way when the host stops ends, and is waited for no longer than its answer may take."""
    slot = bench.launched(stop_timeout=600.0, restart=1.0)
    assert Abandon(0, 1, 1) in bench.call("begin_shutdown", mode)
    assert not bench.machine.is_drained
    bench.tick(5.0)
    assert slot.state is SlotState.FREE
    assert bench.machine.is_drained


@pytest.mark.parametrize("end", [{"code": 0}, {"code": 1}, {"code": 2}, {"signal": 9}])
def test_nothing_restarts_during_a_shutdown(bench, end) -> None:
    """C39: however a worker ends while the host stops, and whatever was wanted before, it has no successor."""
    plain, restarting = bench.started(restart=0.0), bench.started(restart=0.0)
    bench.want("restart", restarting)
    bench.call("begin_shutdown", ShutdownMode.FAST)
    for slot in (plain, restarting):
        assert bench.want("restart", slot) == bench.want("start", slot) == []
        assert bench.want("replace", slot, slot.worker) == []
        forgotten = [effect for effect in bench.exit(slot, **end) if isinstance(effect, Forgotten)]
        assert forgotten[0].reason.startswith("stopped because the host shuts down (")
        assert forgotten[0].last_exit.was_requested
    assert bench.machine.is_drained


def test_termination_is_still_the_reason(bench) -> None:
    """Design 8.6: an operator's termination stays the reason when the host shuts down over it."""
    slot = bench.started()
    bench.want("terminate", slot, by_operator=True)
    assert signals(bench.call("begin_shutdown", ShutdownMode.FAST)) == [], "it was told before"
    forgotten = [effect for effect in bench.exit(slot, 1) if isinstance(effect, Forgotten)]
    assert forgotten[0].reason == "terminated by an operator (exit 1)"


def test_immediate_is_quit_then_kill(bench) -> None:
    """C39: immediate is SIGQUIT, and SIGKILL five seconds later whatever the stop timeout says."""
    slot = bench.started(stop_timeout=600.0)
    effects = bench.call("begin_shutdown", ShutdownMode.IMMEDIATE)
    assert [effect for effect in effects if isinstance(effect, Signal)] == [Signal(0, 1, slot.pid, SIGQUIT, whole_session=True)]
    assert signals(bench.tick(4.9)) == []
    assert signals(bench.tick(0.2)) == [(0, SIGKILL)]


def test_stricter_mode_overrides(bench) -> None:
    """Design 8.3: a second request makes it immediate: SIGQUIT also to those who already had SIGTERM."""
    slot = bench.started(stop_timeout=600.0)
    bench.call("begin_shutdown", ShutdownMode.FAST)
    assert signals(bench.call("begin_shutdown", ShutdownMode.IMMEDIATE)) == [(0, SIGQUIT)]
    assert slot.kill_at == bench.now + 5.0
    assert bench.machine.shutdown is ShutdownMode.IMMEDIATE


@pytest.mark.parametrize("first", list(ShutdownMode))
@pytest.mark.parametrize("second", list(ShutdownMode))
def test_weaker_mode_never_overrides(bench, first: ShutdownMode, second: ShutdownMode) -> None:
    """Design 8.4: a mode that is not stricter changes nothing at all."""
    bench.started()
    bench.call("begin_shutdown", first)
    effects = bench.call("begin_shutdown", second)
    assert bench.machine.shutdown is max(first, second)
    assert bool(effects) is (second > first)


def test_requests_are_logged_as_in_postgresql(bench) -> None:
    """C39: the log says which shutdown began, and whom a smart one waits for."""
    bench.started("loader run")
    bench.call("set_live_handles", 2)
    (log,) = bench.call("begin_shutdown", ShutdownMode.SMART)
    assert (log.message, log.detail) == (
        "received smart shutdown request",
        'It waits for 2 live handles of connections and background worker "loader run".',
    )
    assert bench.call("begin_shutdown", ShutdownMode.FAST)[0] == Log("LOG", "received fast shutdown request")


def test_smart_waits_for_handles(bench) -> None:
    """C39: smart lets everybody run while a connection holds a live handle, then goes on as fast."""
    slot = bench.started(restart=60.0)
    bench.call("set_live_handles", 2)
    assert signals(bench.call("begin_shutdown", ShutdownMode.SMART)) == []
    assert bench.call("set_live_handles", 1) == []
    assert (bench.machine.shutdown, slot.state, bench.machine.is_drained) == (ShutdownMode.SMART, SlotState.STARTED, False)
    assert signals(bench.call("set_live_handles", 0)) == [(0, SIGTERM)]
    assert bench.machine.shutdown is ShutdownMode.FAST


def test_smart_waits_for_workers_that_never_restart(bench) -> None:
    """C39: smart waits until workers that never restart have finished; the others run on until then."""
    daemon, job, late = bench.started(restart=60.0), bench.started(), bench.launched()
    bench.call("begin_shutdown", ShutdownMode.SMART)
    bench.bear(late)
    bench.tell("started", late)
    assert late.state is SlotState.STARTED, "a launch under way is let go on"
    assert signals(bench.exit(job, 0)) == []
    assert (daemon.state, bench.machine.shutdown) == (SlotState.STARTED, ShutdownMode.SMART)
    assert signals(bench.exit(late, 1)) == [(daemon.slotno, SIGTERM)]
    assert bench.machine.shutdown is ShutdownMode.FAST
    bench.exit(daemon, 1)
    assert bench.machine.is_drained


def test_smart_goes_on_when_the_last_birth_fails(bench) -> None:
    """C39: a worker that never restarts and could not be born is waited for no longer."""
    daemon, job = bench.started(restart=60.0), bench.launched()
    bench.call("begin_shutdown", ShutdownMode.SMART)
    assert signals(bench.tell("birth_failed", job, "no memory")) == [(daemon.slotno, SIGTERM)]


def test_smart_restarts_nobody(bench) -> None:
    """C39: while a smart shutdown waits, what ends stays down and nothing new starts, a requested restart included."""
    bench.started()
    ended, restarting = bench.started(restart=0.0), bench.started(restart=0.0)
    bench.want("restart", restarting)
    bench.call("begin_shutdown", ShutdownMode.SMART)
    bench.exit(ended, 1)
    bench.exit(restarting, 0)
    assert (ended.state, restarting.state) == (SlotState.FREE, SlotState.FREE)
    assert not [effect for effect in bench.tick(1e6) if isinstance(effect, Launch)]


def test_smart_with_nobody_to_wait_for_is_fast(bench) -> None:
    """C39: a smart shutdown that waits for nobody begins as a fast one."""
    slot = bench.started(restart=60.0)
    assert signals(bench.call("begin_shutdown", ShutdownMode.SMART)) == [(slot.slotno, SIGTERM)]
    assert bench.machine.shutdown is ShutdownMode.FAST


def test_terminate_works_during_smart(bench) -> None:
    """C35: an operator can end what a smart shutdown waits for."""
    job = bench.started()
    bench.call("begin_shutdown", ShutdownMode.SMART)
    assert signals(bench.want("terminate", job, by_operator=True)) == [(0, SIGTERM)]
    bench.exit(job, 1)
    assert bench.machine.is_drained


def test_a_running_host_is_not_drained(bench) -> None:
    """An idle host is not one that has stopped."""
    assert not bench.machine.is_drained
    bench.call("set_live_handles", 0)
    assert bench.machine.shutdown is None
