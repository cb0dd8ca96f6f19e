"""Workers with stop_when = "phase_lost" (beyond C07): stopped when their phase is lost, started when it is back."""

from __future__ import annotations

import pytest

from bgworker._core.effects import Abandon, Launch, Publish, Signal
from bgworker._core.states import SIGTERM, Intent, Origin, Phase, ShutdownMode, SlotState
from bgworker._spec import BGW_NEVER_RESTART, BgWorkerStartTime

READ_ONLY = BgWorkerStartTime.BgWorkerStart_ConsistentState
LOST = (Phase.STARTING, "connection refused")
BACK = (Phase.RECOVERY_FINISHED, "")
WAITS = "waits for the database to be read-write: connection refused; starts when it is"


def test_lost_phase_stops_it_and_the_next_life_waits(bench, only) -> None:
    """C07: SIGTERM with its own patience, no restart while the phase is away, then one at once; others are left alone."""
    slot = bench.started(stop_when="phase_lost", restart=3600.0, stop_timeout=7.0)
    other = bench.started(restart=1.0)
    signal = only(bench.call("set_phase", *LOST), Signal)
    assert (signal.slotno, signal.signum, signal.whole_session) == (slot.slotno, SIGTERM, False)
    assert (slot.state, slot.kill_at, other.state) == (SlotState.TERMINATING, bench.now + 7.0, SlotState.STARTED)
    assert slot.reason == (
        "stopped because the database is not read-write; its process was told to go and is killed if still there after 7 s,"
        " then starts again"
    )
    bench.exit(slot, 1)
    assert slot.reason == f"stopped because the database is not read-write (exit 1); {WAITS}"
    assert Publish(slot.slotno) in bench.tick(), "restart_at is gone, and others must see it"
    assert (slot.state, slot.restart_at) == (SlotState.WAITING_RESTART, None)
    assert bench.tick(100.0) == []
    bench.call("set_phase", Phase.CONSISTENT, "")
    assert slot.reason.endswith("; waits for the database to be read-write: it is a standby; starts on promotion")
    bench.call("set_phase", *BACK)
    assert Launch(slot.slotno, 1, 2) in bench.tick()


def test_only_the_phase_that_it_needs_counts(bench, kinds) -> None:
    """C07: a database that becomes read-only stops those that need it read-write, and not those that read."""
    reader = bench.started(stop_when="phase_lost", bgw_start_time=READ_ONLY)
    writer = bench.started(stop_when="phase_lost")
    bench.call("set_phase", Phase.CONSISTENT, "")
    assert (reader.state, writer.state) == (SlotState.STARTED, SlotState.TERMINATING)
    bench.call("set_phase", *LOST)
    assert reader.reason.startswith("stopped because the database does not answer; ")
    assert kinds(bench.call("set_phase", Phase.STARTING, "try 2")) == [], "told once"


@pytest.mark.parametrize("restart", [BGW_NEVER_RESTART, 5.0])
@pytest.mark.parametrize("code", [0, 1, 3])
def test_stop_follows_its_intent_and_not_the_code(bench, restart: float, code: int) -> None:
    """C29: the host asked for this exit, so that neither exit code 0 nor BGW_NEVER_RESTART unregisters."""
    slot = bench.started(stop_when="phase_lost", restart=restart)
    bench.call("set_phase", *LOST)
    bench.exit(slot, code)
    assert slot.state is SlotState.WAITING_RESTART
    assert slot.last_exit is not None
    assert (slot.last_exit.is_crash, slot.last_exit.was_requested) == (False, True)


def test_phase_back_before_the_process_is_gone(bench) -> None:
    """A phase that returns while the process still ends calls nothing back: another life follows at once."""
    slot = bench.started(stop_when="phase_lost", restart=5.0)
    bench.call("set_phase", *LOST)
    bench.call("set_phase", *BACK)
    assert slot.state is SlotState.TERMINATING
    bench.exit(slot, 1)
    assert Launch(slot.slotno, 1, 2) in bench.tick()


def test_launch_on_its_way_is_called_off(bench) -> None:
    """A birth in flight is given up; a process that is born but has not started gets SIGTERM like one that has."""
    in_flight, born = bench.launched(stop_when="phase_lost"), bench.born(stop_when="phase_lost")
    effects = bench.call("set_phase", *LOST)
    assert Abandon(in_flight.slotno, 1, 1) in effects
    assert Signal(born.slotno, 1, born.pid, SIGTERM, False) in effects
    bench.tell("birth_failed", in_flight, "called off")
    assert in_flight.reason == f"stopped because the database is not read-write; {WAITS}"


def test_failed_start_stays_one(bench) -> None:
    """A worker that has said why it cannot start is left to its own rule, which BGW_NEVER_RESTART or a long wait may be."""
    slot, never = bench.born(stop_when="phase_lost", restart=60.0), bench.born(stop_when="phase_lost")
    for each in (slot, never):
        bench.tell("start_failed", each, "no function")
    bench.call("set_phase", *LOST)
    assert (slot.state, slot.intent) == (SlotState.LAUNCHING, None)
    bench.exit(slot, 1)
    bench.exit(never, 1)
    assert (slot.restart_at, never.state) == (bench.now + 60.0, SlotState.FREE)


def test_given_up_start_stays_one(make_bench) -> None:
    """A start that took too long and is being killed is no victim of the phase either."""
    bench = make_bench(start_timeout=10.0)
    slot = bench.born(stop_when="phase_lost", restart=60.0)
    bench.tick(10.0)
    bench.call("set_phase", *LOST)
    assert (slot.state, slot.intent) == (SlotState.TERMINATING, None)


def test_worker_without_a_process_keeps_its_time(bench) -> None:
    """A worker between two lives has nothing to stop: its restart time runs, and then it waits for the phase."""
    slot = bench.started(stop_when="phase_lost", restart=60.0)
    bench.exit(slot, 1)
    before = slot.restart_at
    bench.call("set_phase", *LOST)
    assert (slot.state, slot.restart_at, slot.reason) == (SlotState.WAITING_RESTART, before, "exit 1; restarts after 60 s, try 2")
    bench.tick(60.0)
    assert slot.reason == f"exit 1; {WAITS}"


def test_stronger_wishes_win(bench) -> None:
    """C35: terminate beats it; a restart that was asked for meanwhile comes to the same."""
    slot, again = bench.started(stop_when="phase_lost"), bench.started(stop_when="phase_lost")
    bench.call("set_phase", *LOST)
    bench.want("restart", again)
    bench.want("terminate", slot, by_operator=True)
    assert (slot.intent, again.intent) == (Intent.FORGET, Intent.RESTART)
    bench.exit(slot, 1)
    bench.exit(again, 1)
    assert (slot.state, again.state) == (SlotState.FREE, SlotState.WAITING_RESTART)
    bench.want("start", again)
    bench.tick()
    assert again.state is SlotState.WAITING_RESTART, "start does not lift what the phase forbids"
    assert again.reason == f"start requested; {WAITS}"


def test_shutdown_is_not_disturbed(bench, kinds) -> None:
    """C39: while the host shuts down a lost phase stops nobody: a smart shutdown waits for their work, the others ask already."""
    slot = bench.started(stop_when="phase_lost")
    bench.machine.set_live_handles(1, bench.now)
    bench.call("begin_shutdown", ShutdownMode.SMART)
    assert kinds(bench.call("set_phase", *LOST)) == []
    assert slot.state is SlotState.STARTED


def test_shutdown_ends_what_a_lost_phase_began(bench) -> None:
    """C38: a worker that was stopped with its phase is forgotten by a shutdown, with a process and without."""
    going, gone = bench.started(stop_when="phase_lost"), bench.started(stop_when="phase_lost")
    bench.call("set_phase", *LOST)
    bench.exit(gone, 1)
    bench.call("begin_shutdown", ShutdownMode.FAST)
    assert (going.intent, gone.state) == (Intent.STOP, SlotState.FREE)
    bench.exit(going, 1)
    assert bench.machine.is_drained


def test_reload_may_take_the_wish_away(bench, make_worker) -> None:
    """A registration that changed while its worker was being stopped decides what the next life waits for."""
    slot = bench.started(stop_when="phase_lost", origin=Origin.STATIC)
    bench.call("set_phase", *LOST)
    start = BgWorkerStartTime.BgWorkerStart_PostmasterStart
    bench.want("replace", slot, make_worker(restart=1.0, bgw_start_time=start))
    bench.exit(slot, 1)
    assert slot.reason == "stopped because the database is not read-write (exit 1); restarts at once, try 2"
    assert Launch(slot.slotno, 1, 2) in bench.tick()
