"""_core/wishes.py and _core/registrations.py in the machine: terminate, restart, start and replace."""

from __future__ import annotations

import pytest

from bgworker._core.effects import Abandon, Exited, Forgotten, Launch, Log, Publish, Signal
from bgworker._core.states import SIGKILL, SIGTERM, Origin, Phase, SlotState
from bgworker._spec import BGW_NEVER_RESTART, BgWorkerStartTime

# -- wishes ----------------------------------------------------------------------------------


def test_terminate_before_the_launch(bench, only, kinds) -> None:
    """C35: a worker terminated before it started is forgotten without ever being launched."""
    slot = bench.register("x")
    effects = bench.want("terminate", slot)
    assert only(effects, Forgotten).reason == "terminated through its handle before it started"
    assert kinds(effects) == ["Publish", "Forgotten"]
    assert bench.tick() == []


def test_terminate_during_the_restart_delay(bench, only) -> None:
    """C35: a worker between two lives is forgotten at once and not restarted."""
    slot = bench.started("x", restart=5.0, origin=Origin.STATIC)
    bench.exit(slot, 1)
    forgotten = only(bench.want("terminate", slot, by_operator=True), Forgotten)
    assert forgotten.reason == (
        "terminated by an operator while it waited for its restart; stays down until it is started by name or the host restarts"
    )
    assert forgotten.last_exit.code == 1
    assert bench.tick(100.0) == []


def test_terminate_with_the_birth_in_flight(bench, only) -> None:
    """C35: without a pid the birth is called off; the worker is forgotten as soon as the loader confirms."""
    slot = bench.launched()
    assert bench.want("terminate", slot) == [Publish(0), Abandon(0, 1, 1)]
    assert slot.state is SlotState.TERMINATING
    forgotten = only(bench.tell("birth_failed", slot, "called off"), Forgotten)
    assert forgotten.reason == "terminated through its handle before it started"


def test_birth_called_off_too_late(bench, only) -> None:
    """A process born in spite of being called off is killed at once and waited for."""
    slot = bench.launched()
    bench.want("terminate", slot)
    signal = only(bench.tell("born", slot, 55), Signal)
    assert (signal.pid, signal.signum, signal.whole_session) == (55, SIGKILL, True)
    assert slot.state is SlotState.TERMINATING
    assert bench.tell("birth_failed", slot, "nonsense") == [], "the process is there, whatever is said now"
    assert only(bench.exit(slot, signal=9), Forgotten).reason == "terminated through its handle (signal 9 (Killed))"


def test_birth_called_off_and_never_answered(bench, only) -> None:
    """A lost answer costs its slot a bounded wait, whatever the worker's stop_timeout; a birth after that is killed."""
    slot = bench.launched(stop_timeout=3600.0)
    bench.want("terminate", slot)
    assert bench.machine.next_deadline() == bench.now + 5.0
    assert only(bench.tick(5.0), Forgotten).worker.bgw_name == "w"
    assert slot.state is SlotState.FREE
    assert bench.call("born", 0, 1, 1, 55)[-1] == Signal(0, 1, 55, SIGKILL, whole_session=True)


def test_terminate_a_running_worker(bench, only) -> None:
    """C35: SIGTERM, SIGKILL to its whole session at the stop timeout, forgotten when it is gone; no restart."""
    slot = bench.started("x", restart=1.0, stop_timeout=7.0)
    assert bench.want("terminate", slot) == [Publish(0), Signal(0, 1, 101, SIGTERM, whole_session=False)]
    assert slot.terminate_requested
    assert bench.want("terminate", slot) == [], "idempotent"
    assert bench.tick(6.9) == []
    bench.now = slot.kill_at
    effects = bench.tick()
    assert only(effects, Signal) == Signal(0, 1, 101, SIGKILL, whole_session=True)
    log = only(effects, Log)
    assert (log.level, log.message) == ("WARNING", 'background worker "x" (PID 101) did not stop within 7 s')
    assert "unblock_signals()" in log.hint
    assert (slot.kill_at, bench.machine.next_deadline(), bench.tick(1e6)) == (None, None, [])
    effects = bench.exit(slot, signal=9)
    assert only(effects, Exited).exit.was_requested
    assert only(effects, Forgotten).reason == "terminated through its handle (signal 9 (Killed))"


def test_stop_timeout_defaults_to_the_hosts(make_bench) -> None:
    """The host's shutdown_timeout is the default of each worker's stop_timeout."""
    bench = make_bench(shutdown_timeout=2.5)
    slot = bench.started()
    bench.want("terminate", slot)
    assert slot.kill_at == bench.now + 2.5


@pytest.mark.parametrize("end", [{"code": 0}, {"code": 1}, {"code": 9}, {"signal": 11}])
def test_terminate_beats_every_restart(bench, only, end) -> None:
    """C35: whatever is wanted after a terminate, and however the worker ends, it is forgotten."""
    slot = bench.started(restart=0.0)
    bench.want("restart", slot)
    bench.want("terminate", slot)
    bench.want("restart", slot)
    bench.want("start", slot)
    bench.want("replace", slot, slot.worker)
    assert slot.terminate_requested
    only(bench.exit(slot, **end), Forgotten)
    assert bench.tick(1e6) == []


@pytest.mark.parametrize("end", [{"code": 0}, {"code": 1}, {"code": 9}, {"signal": 15}])
@pytest.mark.parametrize("restart", [BGW_NEVER_RESTART, 60.0])
def test_restart_of_a_running_worker(bench, only, end, restart: float) -> None:
    """C29: an exit asked for by a restart follows that intent: the worker comes back at once, also after exit 0 or never."""
    slot = bench.started(restart=restart)
    assert only(bench.want("restart", slot), Signal).signum == SIGTERM
    assert slot.reason.endswith("then starts again")
    assert only(bench.exit(slot, **end), Exited).exit.was_requested
    assert slot.reason.startswith("restart requested (")
    assert slot.reason.endswith("); restarts at once, try 2")
    assert Launch(0, 1, 2) in bench.tick()
    assert slot.intent is None
    bench.bear(slot)
    bench.tell("started", slot)
    bench.exit(slot, 0)
    assert slot.state is SlotState.FREE, "the intent holds for one exit"


def test_restart_without_a_process(bench) -> None:
    """A restart of a waiting worker brings it forward; one that was never launched starts anyway."""
    slot = bench.started(restart=60.0)
    bench.exit(slot, 1)
    bench.want("restart", slot)
    assert slot.restart_at == bench.now
    fresh = bench.register("y")
    assert (bench.want("restart", fresh), fresh.state) == ([], SlotState.NOT_YET_STARTED)
    assert sum(isinstance(effect, Launch) for effect in bench.tick()) == 2


def test_start_of_a_running_worker_does_nothing(bench) -> None:
    """Start brings a waiting worker forward; one that runs or is going is left alone."""
    slot = bench.started()
    for _ in range(2):
        (log,) = bench.want("start", slot)
        assert log.level == "DEBUG"
        bench.want("restart", slot)
    assert slot.state is SlotState.TERMINATING


def test_replace_of_a_running_worker(bench, make_worker, only) -> None:
    """C29: a reload stops the old and starts the new; until it is gone the old registration stands, and its exit names it."""
    slot = bench.started("x", restart=60.0)
    old, middle, new = slot.worker, make_worker("x", restart=2.0), make_worker("x", restart=3.0)
    assert only(bench.want("replace", slot, middle), Signal).signum == SIGTERM
    bench.want("replace", slot, new)
    assert slot.worker is old
    exited = only(bench.exit(slot, 0), Exited)
    assert (exited.worker, exited.exit.was_requested) == (old, True)
    assert (slot.worker, slot.generation, slot.restart_at) == (new, 1, bench.now)
    bench.start_again(slot)
    bench.exit(slot, 1)
    assert (slot.worker, slot.restart_at) == (new, bench.now + 3.0)


def test_replacement_takes_its_place_once(bench, make_worker) -> None:
    """A registration that a reload brought and a later one changed does not come back at the next exit."""
    slot = bench.started("x", restart=60.0)
    bench.want("replace", slot, make_worker("x", restart=60.0))
    bench.exit(slot, 0)
    last = make_worker("x", restart=60.0, bgw_extra="last")
    bench.want("replace", slot, last)
    bench.start_again(slot)
    bench.exit(slot, 1)
    assert slot.worker is last


def test_replace_without_a_process(make_bench, make_worker) -> None:
    """A reload of a waiting worker takes effect at once, its start time included."""
    bench = make_bench(phase=Phase.STARTING)
    slot = bench.register("x")
    assert bench.tick() == []
    new = make_worker("x", restart=2.0, bgw_start_time=BgWorkerStartTime.BgWorkerStart_PostmasterStart)
    assert bench.want("replace", slot, new) == [Publish(0)]
    assert (slot.reason, slot.generation) == ("starts at once", 1)
    assert Launch(0, 1, 1) in bench.tick()
    bench.bear(slot)
    bench.exit(slot, 1)
    assert slot.restart_at == bench.now + 2.0
    bench.want("replace", slot, make_worker("x", bgw_start_time=new.bgw_start_time))
    assert slot.restart_at == bench.now


# -- amend -----------------------------------------------------------------------------------


def test_amend_leaves_a_process_alone(bench, make_worker) -> None:
    """C09: the next exit already follows the new restart time; nobody is signalled."""
    slot = bench.started("x", restart=60.0)
    assert bench.want("amend", slot, make_worker("x", restart=5.0)) == [Publish(0)]
    assert slot.state is SlotState.STARTED
    bench.exit(slot, 1)
    assert slot.restart_at == bench.now + 5.0


def test_amend_shortens_a_wait_and_never_lengthens_it(bench, make_worker) -> None:
    """C09: a wait for a restart is no longer than the new time, and no shorter than the crash-loop guard has it."""
    slot = bench.started("x", restart=60.0)
    bench.exit(slot, 1)
    bench.want("amend", slot, make_worker("x", restart=90.0))
    assert slot.restart_at == bench.now + 60.0
    bench.want("amend", slot, make_worker("x", restart=BGW_NEVER_RESTART))
    assert slot.restart_at == bench.now + 60.0
    bench.want("amend", slot, make_worker("x", restart=0.0))
    assert slot.restart_at == bench.now + 1.0
    assert "restarts after 1 s" in slot.reason


def test_amend_of_what_is_being_replaced(bench, make_worker) -> None:
    """What is on its way takes everything; the process that goes keeps what it was born with."""
    slot = bench.started("x", restart=60.0)
    bench.want("replace", slot, make_worker("x", restart=60.0, bgw_extra="new"))
    newer = make_worker("x", restart=7.0, bgw_extra="new")
    assert bench.want("amend", slot, newer) == []
    bench.exit(slot, 1)
    assert slot.worker == newer


def test_replace_later_signals_nobody(bench, make_worker) -> None:
    """The next life has the new registration, whoever brings it about."""
    slot = bench.started("x", restart=60.0)
    new = make_worker("x", restart=60.0, bgw_extra="new")
    assert bench.want("replace", slot, new, is_now=False) == []
    assert slot.state is SlotState.STARTED
    bench.exit(slot, 1)
    assert slot.worker == new
