"""Restart policy: what follows the end of a life, when, and why (C29 to C31, design section 8, points 6 and 8).

Pure functions from a slot to a verdict; the machine carries the verdict out.

The first line that applies decides::

    terminated (intent FORGET)           forgotten
    the host shuts down, intent STOP     forgotten
    intent RESTART                       launched at once, whatever the code and bgw_restart_time say;
                                         by a crash beside it: the guard below counts this life, too
                                         not by a crash beside it or a reload, where it has a schedule: see there
    it has a schedule                    launched at the next time, however it ended
    it had not started                   a failed start: waits bgw_restart_time; never = forgotten
    exit code 0, success_exit_codes      forgotten; with restart_on "always" waits bgw_restart_time
    BGW_NEVER_RESTART                    forgotten
    exit code 1                          waits bgw_restart_time
    any other end                        a crash: launched at once, whatever bgw_restart_time says; of a
                                         command, which shares nothing: waits bgw_restart_time

The crash-loop guard stretches only waits under one second, and only of lives that ended
within a second of their start several times in a row; it never gives up. A wait of a second
or more is what its author asked for and stays to the letter.

restart_backoff, if the worker has it, makes the waits after failures longer: failed starts, exits
with code 1 and crashes alike. The first failure in a row waits as above; the n-th waits
bgw_restart_time, or a second if that is less, times factor to the power of n - 1, at most the ceiling,
and the jitter on top. A success, or healthy_after seconds of running, ends the row; so does an end
that the host asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from bgworker._core import reasons
from bgworker._core.exits import Exit, outcome
from bgworker._core.record import Slot
from bgworker._core.states import Intent
from bgworker._core.timetable import Run

__all__ = ["Verdict", "after_exit", "backoff_delay", "guard_delay"]

#: Lives shorter than this count for the guard, and waits shorter than this are subject to it (design 8.8).
GUARDED_INTERVAL: Final = 1.0
#: Quick exits in a row that the guard lets pass: one accident, and two tries to get over it.
UNGUARDED_EXITS: Final = 3
#: The guard's first delay; it doubles from here up to GUARDED_INTERVAL.
FIRST_GUARD_DELAY: Final = 0.1
#: A birth that the host itself could not bring about (no memory, no process left) is not retried sooner (faults T17).
BIRTH_RETRY_INTERVAL: Final = 1.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows the end of a life."""

    #: Another life follows.
    restarts: bool
    #: Seconds until it is launched.
    delay: float
    #: Why, without the next act.
    cause: str
    #: Cause and next act.
    reason: str
    #: The new values of the slot's counters.
    quick_exits: int = 0
    failures: int = 0
    #: The registration is over because the worker failed; nobody wanted its end.
    has_failed: bool = False
    #: The time of its schedule that it waits for, and how many came while it ran.
    run: Run | None = None
    missed: int = 0


def guard_delay(quick_exits: int) -> float:
    """Return the least wait after this many quick exits in a row: 0, 0, 0, 0.1, 0.2, 0.4 ... 1 s."""
    doublings = quick_exits - UNGUARDED_EXITS - 1
    if doublings < 0:
        return 0.0
    # The exponent is bounded because a loop may run for years.
    return min(FIRST_GUARD_DELAY * 2.0 ** min(doublings, 10), GUARDED_INTERVAL)


def backoff_delay(backoff: Mapping[str, float], restart_time: float, failures: int, drawn: float) -> float:
    """Return the wait after the second or a later failure in a row.

    Args:
        backoff: The worker's restart_backoff, complete.
        restart_time: Its bgw_restart_time.
        failures: In a row, this one included.
        drawn: From 0 to 1, what the jitter takes.
    """
    wait = ceiling = backoff["ceiling"]
    try:
        # One power instead of a step for each failure: a loop may run for years, and nothing in the host takes long.
        wait = float(max(restart_time, GUARDED_INTERVAL) * backoff["factor"] ** (failures - 1))
    except OverflowError:
        pass  # beyond every float, so beyond the ceiling
    # A tenth is as exact as a random wait needs to be told.
    return round(min(wait, ceiling) * (1 + backoff["jitter"] * drawn), 1)


def after_exit(
    slot: Slot,
    end: Exit | None,
    now: float,
    *,
    is_shutting_down: bool,
    awaited: str = "",
    draw: Callable[[], float] = lambda: 0.0,
    run: Run | None = None,
    missed: int = 0,
) -> Verdict:
    """Return what follows the end of the slot's process.

    Args:
        slot: Still as it was when the process ended.
        end: None when there never was a process: the birth failed or was never answered.
        now: Monotonic.
        is_shutting_down: In any mode.
        awaited: Which phase holds the next life back, in words; empty if none does.
        draw: Returns numbers from 0 to 1, for the jitter.
        run: The next time of its schedule, if it has one from now on.
        missed: How many times of its schedule have come since its launch.
    """
    ended = "" if end is None else f" ({outcome(end.code, end.signal)})"
    if slot.intent is Intent.FORGET:
        cause = f"{slot.cause}{ended or ' before it started'}"
        return _forget(cause, reasons.after_termination(cause, slot, slot.cause))
    if slot.intent is Intent.STOP:
        # A crash beside it took a worker that never restarts; the host's own shutdown is no failure of it.
        return _forget(f"{slot.cause}{ended}", has_failed=slot.reinitialisation != 0 and not is_shutting_down)
    if slot.intent is Intent.RESTART:
        cause = slot.cause if slot.reinitialisation else f"{slot.cause}{ended}"
        if is_shutting_down:
            return _forget(cause, reasons.not_restarted(cause))
        if run is not None and (slot.reinitialisation or slot.cause == reasons.BY_REPLACEMENT):
            return _at_next_time(cause, run, missed, now)
        # Workers that crash in turns, each taking the others down, are one loop: the guard counts for all of them.
        counts = (_quick_exits(slot, now), slot.failures) if slot.reinitialisation else (0, 0)
        return _restart(slot, cause, 0.0, counts[0], awaited, counts[1])
    if run is not None and not is_shutting_down:
        return _at_next_time(slot.failure if end is None else end.reason, run, missed, now)
    return _by_rule(slot, end, now, is_shutting_down=is_shutting_down, awaited=awaited, draw=draw)


def _by_rule(
    slot: Slot, end: Exit | None, now: float, *, is_shutting_down: bool, awaited: str, draw: Callable[[], float]
) -> Verdict:
    """Nobody asked for this end: the exit code and the worker's keys decide."""
    worker = slot.registration
    is_success = end is not None and end.is_success
    cause = slot.failure if end is None else end.reason
    if is_success and worker.restart_on != "always":
        return _forget(cause)
    if worker.is_never_restarted:
        return _forget(cause, reasons.never_restarted(cause), has_failed=True)
    if is_shutting_down:
        return _forget(cause, reasons.not_restarted(cause))
    restart_time = float(worker.bgw_restart_time or 0)
    interval = 0.0 if end is not None and end.is_crash else restart_time
    if end is None:
        interval = max(interval, BIRTH_RETRY_INTERVAL)
    failures = 0 if is_success else _failures(slot, now)
    backoff = worker.restart_backoff
    is_backed_off = backoff is not None and failures > 1
    if backoff is not None and is_backed_off:
        interval = max(backoff_delay(backoff, restart_time, failures, draw()), BIRTH_RETRY_INTERVAL if end is None else 0.0)
    return _restart(slot, cause, interval, _quick_exits(slot, now), awaited, failures, is_backed_off=is_backed_off)


def _at_next_time(cause: str, run: Run, missed: int, now: float) -> Verdict:
    """However it ended, its schedule says when it is started again; nothing that was missed is made up for."""
    cause = f"{cause}; {reasons.missed(missed)} while it ran" if missed else cause
    return Verdict(True, run.at - now, cause, reasons.next_run(cause, run.text), run=run, missed=missed)


def _failures(slot: Slot, now: float) -> int:
    """Return how many lives in a row have failed, with the one that has just ended."""
    backoff = slot.registration.restart_backoff
    is_healthy = backoff is not None and slot.started_at is not None and now - slot.started_at >= backoff["healthy_after"]
    return 1 if is_healthy else slot.failures + 1


def _quick_exits(slot: Slot, now: float) -> int:
    """Return the guard's count with the life that has just ended."""
    began_at = slot.launched_at if slot.started_at is None else slot.started_at
    return slot.quick_exits + 1 if now - began_at < GUARDED_INTERVAL else 0


def _forget(cause: str, reason: str = "", *, has_failed: bool = False) -> Verdict:
    return Verdict(False, 0.0, cause, reason or cause, has_failed=has_failed)


def _restart(
    slot: Slot,
    cause: str,
    interval: float,
    quick_exits: int,
    awaited: str,
    failures: int = 0,
    *,
    is_backed_off: bool = False,
) -> Verdict:
    # The guard never asks for more than GUARDED_INTERVAL, so it cannot stretch an interval that is as long or longer.
    delay = max(interval, guard_delay(quick_exits))
    is_guarded = delay > interval
    is_joint = slot.reinitialisation != 0
    slowed = reasons.guarded(quick_exits) if is_guarded else reasons.backed_off(failures) if is_backed_off else ""
    reason = reasons.restarts(cause, delay, slot.attempt + 1, slowed, is_joint=is_joint)
    if awaited and delay <= 0:
        # The only wait there is. One of seconds is told first, and the phase when that is over.
        reason = reasons.join(cause, awaited)
    return Verdict(True, delay, cause, reason, quick_exits, failures)
