"""The end of a life: read from the wait status, judged by ``restart``, carried out and told.

What a life was ended for ``wishes``, ``shutdown`` and ``timeouts`` know; here is what follows from it, for the
worker, for those that a crash takes along and for a host that waited for it. Made by ``slots``, used by it and
by ``timeouts``.
"""

from __future__ import annotations

from collections.abc import Callable

from bgworker._core import reasons
from bgworker._core.actions import Facts
from bgworker._core.conditions import Conditions
from bgworker._core.crashes import Crashes
from bgworker._core.effects import Effect, Exited, Level, Log
from bgworker._core.exits import Exit, ended_text, read_exit
from bgworker._core.record import Slot
from bgworker._core.restart import Verdict, after_exit
from bgworker._core.roster import Roster, rejected
from bgworker._core.runs import Runs
from bgworker._core.shutdown import Shutdown
from bgworker._core.states import HAS_PROCESS
from bgworker._core.table import Event, Rejection

__all__ = ["Ends"]


class Ends:
    """Takes the ends of processes, and of launches that no process came of.

    Args:
        roster: The slots.
        conditions: What holds the next life back.
        runs: When the next life of a worker with a schedule is.
        crashes: Ends those whom a crash concerns.
        shutdown: May have waited for this end.
        draw: Returns numbers from 0 to 1 at random, for the jitter of restart_backoff.
    """

    def __init__(
        self,
        roster: Roster,
        conditions: Conditions,
        runs: Runs,
        crashes: Crashes,
        shutdown: Shutdown,
        draw: Callable[[], float],
    ) -> None:
        self._roster = roster
        self._conditions = conditions
        self._runs = runs
        self._crashes = crashes
        self._shutdown = shutdown
        self._draw = draw

    def exited(self, slot: Slot, waitstatus: int, now: float, tail: str) -> list[Effect]:
        """Take the end of the slot's process and carry out what follows."""
        if slot.state not in HAS_PROCESS:
            return [rejected(slot, Event.GONE_FOR_GOOD, Rejection.NO_PROCESS)]
        end = _end_of(slot, waitstatus, now, tail)
        is_trouble = end.is_crash or end.is_failed_start
        level: Level = "WARNING" if is_trouble else "DEBUG" if end.is_success or end.code == 0 else "LOG"
        ended_with_it = self._crashes.reinitialise(slot, end, now) if end.is_crash else []
        verdict = self._verdict(slot, end, now)
        if verdict.missed:
            level = "WARNING" if is_trouble else "LOG"
        log = Log(level, ended_text(slot.name, slot.pid, end.code, end.signal), reasons.sentence(verdict.reason))
        exited = Exited(slot.slotno, slot.generation, slot.registration, slot.pid, end)
        # Publish stands first; the exit is told before the forgetting that may follow from it.
        published, *rest = self._conclude(slot, verdict, end, now)
        return [published, log, exited, *rest, *ended_with_it, *self._go_on_with_shutdown(now)]

    def never_born(self, slot: Slot, error: str, now: float) -> list[Effect]:
        """End a launch that no process came of."""
        slot.failure = slot.failure or reasons.failed_to_start(error)
        verdict = self._verdict(slot, None, now)
        level: Level = "WARNING" if slot.intent is None else "DEBUG"
        log = Log(level, f'could not start background worker "{slot.name}": {error}', reasons.sentence(verdict.reason))
        return [*self._conclude(slot, verdict, None, now), log, *self._go_on_with_shutdown(now)]

    def _verdict(self, slot: Slot, end: Exit | None, now: float) -> Verdict:
        following = slot.replacement or slot.registration
        return after_exit(
            slot,
            end,
            now,
            is_shutting_down=self._shutdown.mode is not None,
            awaited=self._conditions.unmet(following),
            draw=self._draw,
            run=self._runs.next_of(following, now),
            missed=self._runs.missed_by(slot, now),
        )

    def _conclude(self, slot: Slot, verdict: Verdict, end: Exit | None, now: float) -> list[Effect]:
        facts = Facts(
            now,
            verdict.cause,
            verdict.reason,
            delay=verdict.delay,
            last_exit=end,
            quick_exits=verdict.quick_exits,
            failures=verdict.failures,
            has_failed=verdict.has_failed,
            run=verdict.run,
        )
        return self._roster.fire(slot, Event.GONE_TO_RESTART if verdict.restarts else Event.GONE_FOR_GOOD, facts)

    def _go_on_with_shutdown(self, now: float) -> list[Effect]:
        return [*self._shutdown.end_smart(now), *self._shutdown.stop_held(now)]


def _end_of(slot: Slot, waitstatus: int, now: float, tail: str) -> Exit:
    """Return the record of the end of a process that the slot knows everything else of."""
    was_requested = slot.intent is not None
    return read_exit(
        waitstatus,
        now,
        tail,
        failure=slot.failure,
        has_started=slot.started_at is not None and not reasons.is_failed_start(slot.failure),
        was_requested=was_requested,
        asked=slot.cause if was_requested else "",
        success_codes=slot.registration.success_exit_codes,
        is_command=slot.registration.command is not None,
    )
