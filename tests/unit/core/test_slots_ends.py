"""_core/ends.py in the machine: how lives end, and what follows."""

from __future__ import annotations

from bgworker._core.effects import Abandon, Exited, Forgotten, Launch, Log, Signal
from bgworker._core.states import SIGKILL, SlotState
from bgworker._spec import BGW_NEVER_RESTART

# -- ends ------------------------------------------------------------------------------------


def test_exit_1_restarts_after_its_time(bench, only, kinds) -> None:
    """C30: exit code 1 waits bgw_restart_time, not a moment less, and comes back as the next attempt."""
    slot = bench.started("x", restart=10.0)
    pid = slot.pid
    effects = bench.exit(slot, 1, tail="connection refused")
    log = only(effects, Log)
    assert (log.level, log.message) == ("LOG", f'background worker "x" (PID {pid}) exited with exit code 1')
    assert log.detail == "Exit 1: connection refused; restarts after 10 s, try 2."
    assert kinds(effects) == ["Publish", "Exited"]
    assert (slot.state, slot.pid, slot.started_at) == (SlotState.WAITING_RESTART, None, None)
    assert slot.restart_at == bench.machine.next_deadline() == bench.now + 10.0
    assert bench.tick(9.999) == []
    assert Launch(0, 1, 2) in bench.tick(0.001)
    assert (slot.attempt, slot.restarts, slot.has_started_once) == (2, 1, True)


def test_crash_restarts_at_once(bench, only) -> None:
    """C31: a crash restarts immediately with a warning, and disturbs nobody outside its scope."""
    bystander = bench.started()
    slot = bench.started("x", restart=3600.0)
    effects = bench.exit(slot, signal=11)
    log = only(effects, Log)
    assert log.level == "WARNING"
    assert log.message == 'background worker "x" (PID 102) was terminated by signal 11: Segmentation fault'
    exited = only(effects, Exited)
    assert (exited.exit.is_crash, exited.exit.code, exited.exit.signal) == (True, None, 11)
    assert slot.reason == "crash: signal 11 (Segmentation fault); restarts at once, try 2"
    assert Launch(slot.slotno, 1, 2) in bench.tick()
    assert (bystander.state, bystander.attempt) == (SlotState.STARTED, 1)


def test_crash_of_a_worker_that_never_restarts(bench, only) -> None:
    """C31: a crashed worker with BGW_NEVER_RESTART is forgotten."""
    slot = bench.started(restart=BGW_NEVER_RESTART)
    forgotten = only(bench.exit(slot, 2), Forgotten)
    assert forgotten.reason == "crash: exit 2; not restarted because bgw_restart_time is BGW_NEVER_RESTART"
    assert slot.state is SlotState.FREE


def test_failed_start_is_told_and_waits(bench, only) -> None:
    """A worker that says why it cannot start waits its restart time, with that reason and not its exit code."""
    slot = bench.born("x", restart=4.0)
    log = only(bench.tell("start_failed", slot, 'no function "main" in library "lib"'), Log)
    assert log.message == 'background worker "x" (PID 101) failed to start: no function "main" in library "lib"'
    assert slot.state is SlotState.LAUNCHING
    assert bench.tell("start_failed", slot, "again") == [], "said once is enough"
    bench.exit(slot, 1, tail="Traceback")
    assert slot.reason == 'failed to start: no function "main" in library "lib"; restarts after 4 s, try 2'
    assert slot.last_exit is not None
    assert slot.last_exit.reason == 'failed to start: no function "main" in library "lib"'
    assert not slot.has_started_once
    bench.tick(4.0)
    bench.bear(slot)
    bench.tell("started", slot)
    bench.exit(slot, 1)
    assert slot.reason == "exit 1; restarts after 4 s, try 3", "a failure belongs to its own life"


def test_failure_that_was_none_is_forgotten_at_the_start(bench) -> None:
    """A worker that says it cannot start and then starts has started; its end is told by its own reason."""
    slot = bench.born(restart=4.0)
    bench.tell("start_failed", slot, "no function")
    bench.tell("started", slot)
    assert (slot.state, slot.kill_at) == (SlotState.STARTED, None)
    bench.exit(slot, 1)
    assert slot.reason == "exit 1; restarts after 4 s, try 2"


def test_each_wait_is_its_own(bench) -> None:
    """C30: a turn that another worker makes necessary launches nobody before its time."""
    early, late = bench.started(restart=5.0), bench.started(restart=5.0)
    bench.exit(early, 1)
    bench.now += 0.1
    bench.exit(late, 1)
    bench.tick(4.9)
    assert (early.state, late.state) == (SlotState.LAUNCHING, SlotState.WAITING_RESTART)


def test_each_life_has_to_start_anew(bench) -> None:
    """C31: a worker that once started and now ends violently before its start has failed to start, it has not crashed."""
    slot = bench.started(restart=4.0)
    bench.exit(slot, 1)
    bench.tick(4.0)
    bench.bear(slot)
    bench.exit(slot, signal=11)
    assert slot.reason == "failed to start: signal 11 (Segmentation fault); restarts after 4 s, try 3"
    assert slot.has_started_once


def test_silent_end_before_the_start_is_a_failed_start(bench, only) -> None:
    """Any exit before started counts as a failed start, exit code 0 and signals too."""
    slot = bench.born("x", restart=4.0)
    effects = bench.exit(slot, 0)
    assert only(effects, Log).level == "WARNING"
    assert slot.reason == "failed to start: exit 0; restarts after 4 s, try 2"
    slot = bench.born("y")
    forgotten = only(bench.exit(slot, signal=11), Forgotten)
    assert forgotten.reason.startswith("failed to start: signal 11 (Segmentation fault)")
    assert not only(bench.effects[-20:], Forgotten).last_exit.is_crash


def test_end_of_a_process_whose_pid_was_never_told(bench, only) -> None:
    """An exit is an exit, even when the loader's line about the birth was lost."""
    slot = bench.launched("x", restart=4.0)
    assert only(bench.exit(slot, 1), Log).message == 'background worker "x" exited with exit code 1'
    assert slot.state is SlotState.WAITING_RESTART


def test_crash_loop_is_slowed_down_in_the_open(bench) -> None:
    """C09: restart time 0 is at once three times over, then 0.1 s doubles up to 1 s; a longer life forgives all."""
    slot = bench.started(restart=0.0)
    delays = []
    for _ in range(9):
        bench.exit(slot, 1)
        delays.append(round(slot.restart_at - bench.now, 6))
        assert ("guard" in slot.reason) is (delays[-1] > 0)
        bench.now = slot.restart_at
        bench.start_again(slot)
    assert delays == [0, 0, 0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    bench.now += 1.0
    bench.exit(slot, 1)
    assert slot.restart_at == bench.now
    assert slot.quick_exits == 0


def test_wishes_forgive_what_the_guard_counted(bench) -> None:
    """An operator's start is the operator's: it is not slowed down by what happened before."""
    slot = bench.started(restart=0.0)
    for _ in range(6):
        bench.exit(slot, 1)
        bench.now = slot.restart_at
        bench.start_again(slot)
    bench.exit(slot, 1)
    assert slot.restart_at > bench.now
    bench.want("start", slot)
    assert slot.restart_at == bench.now
    assert slot.reason == "start requested; starts at once"
    bench.start_again(slot)
    bench.exit(slot, 1)
    assert slot.restart_at == bench.now


# -- the start timeout -----------------------------------------------------------------------


def test_start_timeout_kills_and_counts_as_a_failed_start(make_bench, only, kinds) -> None:
    """A launched worker that never says started is killed with its session, and its restart rule decides."""
    bench = make_bench(start_timeout=30.0)
    slot = bench.born("x", restart=10.0)
    assert bench.machine.next_deadline() == bench.now + 30.0
    assert bench.tick(29.0) == []
    effects = bench.tick(1.0)
    assert only(effects, Signal) == Signal(0, 1, 101, SIGKILL, whole_session=True)
    assert only(effects, Log).message == 'background worker "x" (PID 101) failed to start: it did not start within 30 s'
    assert slot.state is SlotState.TERMINATING
    assert slot.reason.endswith("its process was killed and is waited for, then counts as a failed start")
    assert kinds(bench.tell("started", slot)) == [], "too late"
    exited = only(bench.exit(slot, signal=9), Exited)
    assert (exited.exit.is_crash, exited.exit.was_requested) == (False, False)
    assert slot.reason == "failed to start: it did not start within 30 s; restarts after 10 s, try 2"


def test_start_timeout_without_a_pid(bench, only) -> None:
    """A birth that is never answered is called off, then given up, and counts as a failed start."""
    slot = bench.launched("x", restart=10.0)
    assert only(bench.tick(60.0), Abandon) == Abandon(0, 1, 1)
    only(bench.tick(5.0), Log)
    assert (slot.state, slot.restart_at) == (SlotState.WAITING_RESTART, bench.now + 10.0)
    assert slot.reason.startswith("failed to start: it did not start within 60 s")


def test_worker_that_failed_to_start_but_stays_is_killed(bench, only) -> None:
    """Having said that it cannot start, a worker has seconds to go, not the rest of the start timeout."""
    slot = bench.born("x", restart=10.0)
    bench.tell("start_failed", slot, "no library")
    assert only(bench.tick(5.0), Signal).signum == SIGKILL
    bench.exit(slot, signal=9)
    assert slot.reason == "failed to start: no library; restarts after 10 s, try 2"


def test_a_failure_does_not_prolong_the_start_timeout(bench) -> None:
    """Saying at the last moment that it cannot start buys a worker no time."""
    slot = bench.born()
    deadline = slot.kill_at
    bench.now = deadline - 1.0
    bench.tell("start_failed", slot, "no library")
    assert slot.kill_at == deadline


def test_start_timeout_ends_with_the_start(bench) -> None:
    """A worker that started runs as long as it likes."""
    bench.started()
    assert bench.machine.next_deadline() is None
    assert bench.tick(1e6) == []
