"""_core/crashes.py and _core/scope.py in the machine: who goes down with a crash, and when they start again (C31)."""

from __future__ import annotations

import pytest

from bgworker._core.effects import Exited, Launch, Log, Reinitialise, Signal
from bgworker._core.scope import CrashScope, Segment
from bgworker._core.states import ShutdownMode, SlotState
from bgworker.errors import SharedMemoryError

A, B, C = Segment("a", 1), Segment("b", 1), Segment("c", 1)


def attach(bench, slot, *segments: Segment) -> None:
    """Attach the slot's process to segments."""
    for segment in segments:
        bench.tell("attach", slot, segment)


def told(effects) -> list[tuple[int, int]]:
    """Return who was signalled, and with what."""
    return [(effect.pid, effect.signum) for effect in effects if isinstance(effect, Signal)]


def launches(effects) -> list[int]:
    """Return the slots that were launched."""
    return [effect.slotno for effect in effects if isinstance(effect, Launch)]


def test_crash_takes_down_who_shares_a_segment(bench, only) -> None:
    """C31: those attached to a segment of the crashed worker get SIGQUIT, SIGKILL after 5 s, and start when all are gone."""
    crashed, peer = bench.started("A", restart=3600.0), bench.started("peer", restart=3600.0)
    never, outsider = bench.started("never"), bench.started("outsider")
    attach(bench, crashed, A)
    attach(bench, peer, A)
    attach(bench, never, A)
    attach(bench, outsider, B)
    crashed_pid = crashed.pid
    effects = bench.exit(crashed, signal=11)
    assert told(effects) == [(peer.pid, 3), (never.pid, 3)]
    assert only(effects, Reinitialise) == Reinitialise(2, frozenset({A}))
    line = [log for log in effects if isinstance(log, Log)][1]
    assert (
        line.message == f'terminating 2 other background workers because of the crash of background worker "A" (PID {crashed_pid})'
    )
    assert line.detail == (
        'They share memory that it may have left half-written: segment "a". They are "peer", "never"; '
        "those that restart start again when all of them are gone."
    )
    assert crashed.reason == (
        "crash: signal 11 (Segmentation fault); restarts at once, when all that the crash ends are gone, try 2"
    )
    assert peer.reason == (
        'reinitialised: "A" crashed (signal 11 (Segmentation fault)); '
        "its process was told to go and is killed if still there after 5 s, then starts again"
    )
    assert told(bench.tick(4.9)) == []
    assert told(bench.tick(0.1)) == [(peer.pid, 9), (never.pid, 9)]
    bench.exit(peer, signal=9)
    assert launches(bench.tick()) == []
    assert bench.machine.next_deadline() is None
    assert peer.reason == (
        'reinitialised: "A" crashed (signal 11 (Segmentation fault)); '
        "restarts at once, when all that the crash ends are gone, try 2"
    )
    bench.exit(never, signal=9)
    assert never.state is SlotState.FREE
    assert launches(bench.tick()) == [crashed.slotno, peer.slotno]
    assert (outsider.state, outsider.attempt) == (SlotState.STARTED, 1)


def test_scope_is_closed(bench, only) -> None:
    """C31: who is killed may have been writing a segment of its own, so those who share that one go down, too."""
    first, second, third, alone = (bench.started(name, restart=1.0) for name in "1234")
    attach(bench, first, A)
    attach(bench, second, A, B)
    attach(bench, third, B, C)
    attach(bench, alone, Segment("a", 2))
    effects = bench.exit(first, 2)
    assert told(effects) == [(second.pid, 3), (third.pid, 3)]
    assert only(effects, Reinitialise).segments == {A, B, C}


def test_cluster_scope_is_everybody(make_bench) -> None:
    """C31: with crash_scope "cluster" every worker that has a process goes down; one between two lives keeps its wait."""
    bench = make_bench(crash_scope=CrashScope.CLUSTER)
    crashed, peer, waiting = (bench.started(name, restart=60.0) for name in "abc")
    bench.exit(waiting, 1)
    born = bench.born("d", restart=60.0)
    launched = bench.launched("e", restart=60.0)
    effects = bench.exit(crashed, 3)
    assert told(effects) == [(peer.pid, 3), (born.pid, 3)]
    assert launched.state is SlotState.TERMINATING
    assert waiting.restart_at == bench.now + 60.0
    bench.exit(peer, signal=3)
    bench.exit(born, signal=3)
    bench.tell("birth_failed", launched, "not wanted any more")
    assert launches(bench.tick()) == [crashed.slotno, peer.slotno, born.slotno, launched.slotno]


def test_second_crash_during_a_reinitialisation_is_none(bench, only) -> None:
    """C31: a worker that was told to quit cannot crash any more; there is one reinitialisation and one log line."""
    slots = [bench.started(name, restart=1.0) for name in "abc"]
    for slot in slots:
        attach(bench, slot, A)
    bench.exit(slots[0], signal=9)
    effects = bench.exit(slots[1], signal=11)
    assert not only(effects, Exited).exit.is_crash
    assert not [effect for effect in effects if isinstance(effect, Reinitialise | Signal)]
    assert len([log for log in bench.effects if isinstance(log, Log) and "because of" in log.message]) == 1
    bench.exit(slots[2], signal=3)
    assert launches(bench.tick()) == [0, 1, 2]


def test_crash_that_reaches_into_a_reinitialisation_joins_it(make_bench) -> None:
    """C31: a newcomer's crash while others are still on their way out does not let the first ones start too early."""
    bench = make_bench(crash_scope=CrashScope.CLUSTER)
    crashed, immune = bench.started("crashed", restart=1.0), bench.started("immune", restart=1.0)
    bench.exit(crashed, signal=9)
    newcomer = bench.started("newcomer", restart=1.0)
    effects = bench.exit(newcomer, signal=9)
    assert told(effects) == []
    assert launches(bench.tick()) == []
    bench.exit(immune, signal=9)
    assert launches(bench.tick()) == [0, 1, 2]


@pytest.mark.parametrize("code", [0, 1])
def test_ordinary_exit_concerns_nobody(bench, code) -> None:
    """C31: exit codes 0 and 1 are no crash, whatever the worker was attached to."""
    leaving, peer = bench.started(restart=1.0), bench.started(restart=1.0)
    attach(bench, leaving, A)
    attach(bench, peer, A)
    assert told(bench.exit(leaving, code)) == []
    assert peer.state is SlotState.STARTED


def test_exit_that_was_asked_for_concerns_nobody(bench) -> None:
    """C31: SIGKILL by the host's own ladder is no crash."""
    stopped, peer = bench.started(restart=1.0), bench.started(restart=1.0)
    attach(bench, stopped, A)
    attach(bench, peer, A)
    bench.want("terminate", stopped)
    bench.tick(60.0)
    assert told(bench.exit(stopped, signal=9)) == []
    assert peer.state is SlotState.STARTED


def test_attachment_ends_with_its_process(bench) -> None:
    """C31: a life is attached to what it asked for itself, and to nothing that the life before it had."""
    slot, peer = bench.started(restart=0.0), bench.started(restart=0.0)
    attach(bench, slot, A)
    attach(bench, peer, A)
    bench.exit(slot, 1)
    bench.start_again(slot)
    assert told(bench.exit(slot, signal=9)) == []


def test_who_does_not_run_cannot_attach(bench) -> None:
    """C31: an end before the start is no crash, and a worker on its way out would not be killed for another's."""
    born, going = bench.born(), bench.started()
    bench.want("terminate", going)
    for slot in (born, going):
        with pytest.raises(SharedMemoryError, match='could not attach to shared memory segment "a"'):
            attach(bench, slot, A)


def test_terminate_and_shutdown_win_over_a_reinitialisation(bench) -> None:
    """C31, C35, C38: who is terminated meanwhile stays away, and after a shutdown nobody comes back."""
    crashed, first, second = (bench.started(name, restart=1.0) for name in "abc")
    for slot in (crashed, first, second):
        attach(bench, slot, A)
    bench.exit(crashed, signal=9)
    bench.want("terminate", first)
    bench.exit(first, signal=3)
    assert first.state is SlotState.FREE
    bench.call("begin_shutdown", ShutdownMode.FAST)
    assert crashed.state is SlotState.FREE
    bench.exit(second, signal=3)
    assert bench.machine.is_drained
    assert launches(bench.tick(10.0)) == []


def test_workers_that_crash_in_turns_do_not_spin(bench) -> None:
    """C09, C31: the guard counts every life that a crash ends, so that a loop of several workers slows down like one of one."""
    slots = [bench.started(name, restart=0.0) for name in "abcdefgh"]
    begin = bench.now
    for turn in range(12):
        for slot in slots:
            attach(bench, slot, Segment("a", turn))
        bench.exit(slots[turn % 8], signal=11)
        for slot in slots:
            if slot.state is SlotState.TERMINATING:
                bench.exit(slot, signal=3)
        bench.now = max(bench.now, bench.machine.next_deadline())
        for slot in slots:
            bench.start_again(slot)
    assert bench.now - begin == pytest.approx(0.1 + 0.2 + 0.4 + 0.8 + 5 * 1.0)
    assert slots[0].quick_exits == 12
