"""_core/slots.py: registration, launch, what the loader says, and what comes too late."""

from __future__ import annotations

import pytest

from bgworker._core.effects import Forgotten, Launch, Log, Publish, Signal, Started
from bgworker._core.slots import MAX_LAUNCHES_PER_TICK
from bgworker._core.states import SIGKILL, Origin, Phase, ShutdownMode, SlotState
from bgworker._spec import BgWorkerStartTime
from bgworker.errors import NoFreeSlot, RegistrationError

# -- registration ----------------------------------------------------------------------------


def test_register_takes_the_lowest_free_slot(bench) -> None:
    """C33: a registration is a slot and a generation of it."""
    first, second = bench.register("a"), bench.register("b")
    assert (first.slotno, first.generation, second.slotno, second.generation) == (0, 1, 1, 1)
    assert (first.state, first.attempt, first.reason) == (SlotState.NOT_YET_STARTED, 0, "starts at once")
    bench.want("terminate", first)
    again = bench.register("c")
    assert (again.slotno, again.generation) == (0, 2)
    assert bench.register("d").slotno == 2


def test_register_is_logged_and_published(bench, make_worker) -> None:
    """C04: log lines name the worker by bgw_name."""
    _, effects = bench.machine.register(make_worker("x"), Origin.STATIC, bench.now)
    assert effects == [Publish(0), Log("DEBUG", 'registering background worker "x"')]


def test_too_many_workers(make_bench) -> None:
    """C14: one worker too many is refused in PostgreSQL's words, with who holds the slots, and can succeed later."""
    bench = make_bench(slots=3)
    for name in ("a", "b"):
        bench.register(name, bgw_type="export")
    last = bench.register("spi")
    with pytest.raises(NoFreeSlot) as refusal:
        bench.register("x")
    error = refusal.value
    assert error.message_primary == "too many background workers"
    assert error.message_detail == (
        "Up to 3 background workers can be registered with the current settings."
        " The slots are held by export (2, lib), spi (1, lib)."
    )
    assert error.message_hint == 'Consider increasing the configuration parameter "max_worker_processes".'
    bench.want("terminate", last)
    assert bench.register("x") is last


def test_refusal_names_a_bounded_number_of_types(make_bench) -> None:
    """C14: many types of one worker each do not make the refusal a list of hundreds."""
    bench = make_bench(slots=12)
    for number in range(12):
        bench.register(f"w{number}")
    with pytest.raises(NoFreeSlot) as refusal:
        bench.register("x")
    assert refusal.value.message_detail.endswith("w0 (1, lib), w1 (1, lib), w2 (1, lib), w3 (1, lib), w4 (1, lib), others (7).")


@pytest.mark.parametrize("mode", list(ShutdownMode))
def test_no_registration_while_stopping(bench, mode: ShutdownMode) -> None:
    """C39: a host that shuts down takes no new registrations, in any mode, and says why."""
    bench.call("begin_shutdown", mode)
    with pytest.raises(RegistrationError, match='background worker "x" cannot be registered: the host is shutting down'):
        bench.register("x")


# -- launch ----------------------------------------------------------------------------------


def test_life_of_a_worker(bench) -> None:
    """C01, C29: registered, launched, born, started, gone with exit 0, forgotten; each step told in order."""
    slot = bench.register("x")
    assert bench.tick() == [Publish(0), Log("DEBUG", 'starting background worker process "x"'), Launch(0, 1, 1)]
    assert (slot.state, slot.pid, slot.attempt) == (SlotState.LAUNCHING, None, 1)
    assert bench.tell("born", slot, 4711) == [Publish(0)]
    assert (slot.state, slot.pid, slot.started_at) == (SlotState.LAUNCHING, 4711, None)
    bench.now += 2.0
    assert bench.tell("started", slot) == [Publish(0), Started(0, 1, 4711)]
    assert (slot.state, slot.started_at, slot.has_started_once, slot.reason) == (SlotState.STARTED, bench.now, True, "")
    worker = slot.worker
    published, log, exited, unregistering, forgotten = bench.exit(slot, 0)
    assert published == Publish(0)
    assert (log.level, log.message) == ("DEBUG", 'background worker "x" (PID 4711) exited with exit code 0')
    assert (exited.pid, exited.worker, exited.exit.reason, exited.exit.is_crash) == (4711, worker, "exit 0", False)
    assert unregistering.message == 'unregistering background worker "x"'
    assert forgotten == Forgotten(0, 1, worker, Origin.DYNAMIC, exited.exit, "exit 0")
    assert slot.state is SlotState.FREE


def test_launch_comes_once(bench) -> None:
    """A turn that finds nothing changed asks for nothing."""
    bench.launched()
    assert bench.tick() == []


def test_at_most_100_launches_per_tick(make_bench) -> None:
    """The host's turn stays short: the rest is due at once, in the next turn, and nobody is left out."""
    bench = make_bench(slots=250)
    for number in range(250):
        bench.register(f"w{number}")
    counts = []
    while bench.machine.next_deadline() == bench.now:
        counts.append(sum(isinstance(effect, Launch) for effect in bench.tick()))
    assert counts == [MAX_LAUNCHES_PER_TICK, MAX_LAUNCHES_PER_TICK, 50]


def test_start_waits_for_the_phase(make_bench) -> None:
    """C07: each start time is launched at its phase and not before, and says what it waits for."""
    bench = make_bench(phase=Phase.STARTING)
    start_times = list(BgWorkerStartTime)
    slots = [bench.register(time.name, bgw_start_time=time) for time in start_times]
    bench.tick()
    assert [slot.state is SlotState.LAUNCHING for slot in slots] == [True, False, False]
    assert bench.machine.next_deadline() == slots[0].kill_at, "a worker held back by the phase is not due"
    bench.call("set_phase", Phase.CONSISTENT, "")
    assert bench.machine.next_deadline() == bench.now
    bench.tick()
    assert [slot.state is SlotState.LAUNCHING for slot in slots] == [True, True, False]
    assert slots[2].reason == "waits for the database to be read-write: it is a standby; starts on promotion"
    bench.call("set_phase", Phase.RECOVERY_FINISHED, "")
    assert slots[2].reason == "starts at once"
    bench.tick()
    assert slots[2].state is SlotState.LAUNCHING


def test_reason_follows_the_database(make_bench) -> None:
    """The reason of a wait names the database's latest trouble, and is published only when it changes."""
    bench = make_bench(phase=Phase.STARTING)
    slot = bench.register()
    assert bench.call("set_phase", Phase.STARTING, "connection refused") == [Publish(slot.slotno)]
    assert slot.reason == "waits for the database to be read-write: connection refused; starts when it is"
    assert bench.call("set_phase", Phase.STARTING, "connection refused") == []


def test_phase_going_down_stops_nobody(bench, kinds) -> None:
    """C07: workers do not stop when another state is reached; only starts to come are held back."""
    started, launching, waiting = bench.started(), bench.launched(), bench.started(restart=5.0)
    bench.exit(waiting, 1)
    assert kinds(bench.call("set_phase", Phase.STARTING, "connection refused")) == []
    assert (started.state, launching.state) == (SlotState.STARTED, SlotState.LAUNCHING)
    bench.tick(5.0)
    assert (waiting.state, waiting.restart_at) == (SlotState.WAITING_RESTART, None)
    assert waiting.reason == "exit 1; waits for the database to be read-write: connection refused; starts when it is"
    assert Publish(waiting.slotno) not in bench.tick(1.0), "the reason is written once"
    bench.call("set_phase", Phase.RECOVERY_FINISHED, "")
    assert Launch(waiting.slotno, 1, 2) in bench.tick()


# -- what the loader says --------------------------------------------------------------------


def test_birth_that_fails_is_a_failed_start(bench, only, kinds) -> None:
    """A process that could not be born is retried after the restart time, at least a second later, told in words."""
    slot = bench.launched("x", restart=0.0)
    effects = bench.tell("birth_failed", slot, "Resource temporarily unavailable")
    log = only(effects, Log)
    assert log.message == 'could not start background worker "x": Resource temporarily unavailable'
    assert slot.reason == "failed to start: Resource temporarily unavailable; restarts after 1 s, try 2"
    assert log.detail == "Failed to start: Resource temporarily unavailable; restarts after 1 s, try 2."
    assert (slot.state, slot.restart_at, slot.last_exit) == (SlotState.WAITING_RESTART, bench.now + 1.0, None)
    assert "Exited" not in kinds(effects), "there was no process"


def test_birth_that_fails_of_a_worker_that_never_restarts(bench, only) -> None:
    """C36: such a worker is forgotten, and its reason says why it failed to start."""
    slot = bench.launched()
    forgotten = only(bench.tell("birth_failed", slot, "no memory"), Forgotten)
    assert forgotten.reason.startswith("failed to start: no memory")
    assert slot.state is SlotState.FREE


def test_birth_useless_after_all_is_killed(bench, only) -> None:
    """A birth reported as failed after its pid was known leaves a process, which must not live on beside the next."""
    slot = bench.born(restart=3.0)
    signal = only(bench.tell("birth_failed", slot, "its channel is gone"), Signal)
    assert (signal.pid, signal.signum, signal.whole_session) == (slot.pid, SIGKILL, True)
    assert slot.state is SlotState.TERMINATING
    bench.exit(slot, signal=9)
    assert slot.reason == "failed to start: its channel is gone; restarts after 3 s, try 2"
    assert slot.last_exit is not None
    assert slot.last_exit.signal == 9


def test_started_may_overtake_born(bench, kinds) -> None:
    """A clone can speak before the loader does; STARTED waits for the pid, so that nobody sees a worker without one."""
    slot = bench.launched()
    assert bench.tell("started", slot) == []
    assert slot.state is SlotState.LAUNCHING
    assert kinds(bench.tell("born", slot, 9)) == ["Publish", "Publish", "Started"]
    assert (slot.state, slot.pid) == (SlotState.STARTED, 9)


def test_overtaking_is_forgotten_with_its_life(bench) -> None:
    """An early "started" counts for its own launch alone."""
    slot = bench.launched(restart=1.0)
    bench.tell("started", slot)
    bench.tell("birth_failed", slot, "x")
    bench.tick(1.0)
    bench.bear(slot)
    assert slot.state is SlotState.LAUNCHING


def test_same_birth_told_twice_changes_nothing(bench) -> None:
    """A loader that repeats itself does no harm."""
    slot = bench.born()
    assert bench.tell("born", slot, slot.pid) == []


def test_second_process_is_killed(bench) -> None:
    """A birth request that was answered twice leaves a process too many: the second one goes, the first one stays."""
    for slot in (bench.born(), bench.started()):
        before = repr(slot)
        assert bench.tell("born", slot, 9999)[-1] == Signal(slot.slotno, 1, 9999, SIGKILL, whole_session=True)
        assert repr(slot) == before


def test_late_birth_is_killed_unless_the_pid_has_moved_on(bench) -> None:
    """A process nobody waits for is killed, but never by a pid that is another worker's by now."""
    slot = bench.launched()
    attempt = (slot.slotno, slot.generation, slot.attempt)
    bench.tell("birth_failed", slot, "the loader died")
    other = bench.started()
    assert bench.call("born", *attempt, 9999)[-1] == Signal(*attempt[:2], 9999, SIGKILL, whole_session=True)
    assert bench.call("born", *attempt, other.pid) == []


# -- the past --------------------------------------------------------------------------------


def test_events_of_the_past_are_ignored(bench) -> None:
    """C34: what is said of an earlier generation or attempt changes nothing."""
    old = bench.started()
    bench.exit(old, 0)
    slot = bench.started(restart=1.0)
    assert (slot.slotno, slot.generation) == (0, 2)
    bench.exit(slot, 1)
    bench.tick(1.0)
    bench.bear(slot)
    before = repr(slot)
    for generation, attempt in ((1, 1), (1, 2), (2, 1), (2, 3), (3, 2)):
        for method, extra in (("started", ()), ("start_failed", ("x",)), ("birth_failed", ("x",))):
            assert bench.call(method, 0, generation, attempt, *extra) == []
        assert bench.machine.exited(0, generation, attempt, 0, bench.now) == []
    for method in ("terminate", "restart", "start"):
        assert bench.call(method, 0, 1) == []
        assert bench.call(method, 99, 1) == []
        assert bench.call(method, -8, 2) == []
    assert repr(slot) == before


def test_messages_of_the_wrong_moment_are_ignored(bench) -> None:
    """What a worker says out of turn leaves a debug line and nothing else."""
    slot = bench.started("x", restart=5.0)
    before = repr(slot)
    for method, extra in (("started", ()), ("start_failed", ("x",))):
        (log,) = bench.tell(method, slot, *extra)
        assert (log.level, "already started" in log.message) == ("DEBUG", True)
    assert bench.tell("birth_failed", slot, "x") == []
    assert repr(slot) == before
    bench.exit(slot, 1)
    (log,) = bench.exit(slot, 0)
    assert log.message == 'ignored event "gone_for_good" of background worker "x": it has no process'
    assert slot.state is SlotState.WAITING_RESTART


def test_lost_process_is_replaced_within_its_launch(bench) -> None:
    """C33: a process that ends before it knows what it is to be costs no attempt, no restart and no time."""
    slot = bench.born()
    deadline = slot.kill_at
    effects = bench.tell("lost", slot, 9)
    assert [e for e in effects if not isinstance(e, Log)] == [Publish(0), Launch(0, 1, 1)]
    assert (slot.state, slot.pid, slot.restarts, slot.last_exit, slot.kill_at) == (SlotState.LAUNCHING, None, 0, None, deadline)
    bench.bear(slot)
    bench.tell("started", slot)
    assert slot.state is SlotState.STARTED


def test_lost_process_of_a_worker_that_was_told_to_go_has_exited(bench) -> None:
    """C35: nothing is launched again for a worker that was terminated meanwhile."""
    slot = bench.born()
    bench.want("terminate", slot)
    effects = bench.tell("lost", slot, 9)
    assert any(isinstance(e, Forgotten) for e in effects)
    assert slot.state is SlotState.FREE
