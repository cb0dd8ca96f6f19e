"""The deadlines of a process: how long it may take to start, to go, without a word, and in all; and what follows when that is over.

A deadline is an instant in its slot (``kill_at``, ``stuck_at``, ``recycle_at``, ``run``); ``agenda`` says
which has come. Made by ``slots`` and used by it alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bgworker._core import reasons
from bgworker._core.actions import ANSWER_TIMEOUT, WATCHDOG_SLACK, Facts, who
from bgworker._core.effects import Effect, Log
from bgworker._core.ends import Ends
from bgworker._core.record import Slot
from bgworker._core.roster import Roster
from bgworker._core.runs import Runs
from bgworker._core.shutdown import Shutdown
from bgworker._core.states import SlotState
from bgworker._core.table import Event
from bgworker._core.wishes import Wishes

__all__ = ["Timeouts"]

#: A max_age is made longer by at most this part of it, at random.
RECYCLE_JITTER: Final = 0.1


class Timeouts:
    """Sets the deadlines of processes, and acts on those that have come.

    Args:
        roster: The slots.
        wishes: Tells workers to go.
        runs: The next run must not come while one runs.
        ends: Ends a launch that is never answered.
        shutdown: While it is in progress nobody is recycled.
        start_timeout: Seconds that a launched worker may take to start, without a ``start_timeout`` of its own.
        draw: Returns numbers from 0 to 1 at random, for max_age.
    """

    def __init__(
        self,
        roster: Roster,
        wishes: Wishes,
        runs: Runs,
        ends: Ends,
        shutdown: Shutdown,
        start_timeout: float,
        draw: Callable[[], float],
    ) -> None:
        self._roster = roster
        self._wishes = wishes
        self._runs = runs
        self._ends = ends
        self._shutdown = shutdown
        self._start_timeout = start_timeout
        self._draw = draw

    def of_start(self, slot: Slot) -> float:
        """Return the seconds that a launch of it may take."""
        own = slot.registration.start_timeout
        return self._start_timeout if own is None else own

    def of_life(self, slot: Slot, now: float) -> Facts:
        """Return the deadlines of a life that begins now."""
        max_age = slot.registration.max_age
        # Workers that started together are not to be away together.
        recycle_at = 0.0 if max_age is None else now + max_age * (1 + RECYCLE_JITTER * self._draw())
        run = self._runs.next_of(slot.registration, now)
        return Facts(now, timeout=self.of_start(slot), recycle_at=recycle_at, run=run)

    def moved(self, slot: Slot, now: float, *, is_idle: bool) -> None:
        """Begin the span of a watchdog anew; of a worker that waits for as long as it takes there is none."""
        if slot.state is SlotState.STARTED and slot.registration.watchdog is not None:
            self._roster.changed(slot, now)
            slot.stuck_at = None if is_idle else now + slot.registration.watchdog * WATCHDOG_SLACK

    def act(self, slot: Slot, now: float) -> list[Effect]:
        """Act on the deadline that has come for a slot, if it is one of a process."""
        if slot.kill_at is not None and slot.kill_at <= now:
            return self._overdue(slot, now)
        if slot.state is not SlotState.STARTED:
            return []
        worker = slot.registration
        if slot.stuck_at is not None and slot.stuck_at <= now:
            facts = Facts(now, cause=reasons.stuck(worker.watchdog or 0.0), timeout=self._wishes.stop_timeout_of(slot))
            return self._roster.fire(slot, Event.STUCK, facts)
        if slot.recycle_at is not None and slot.recycle_at <= now:
            return self.recycle(slot, reasons.too_old(worker.max_age or 0.0), now)
        if slot.run is not None and slot.run.at <= now:
            return self._runs.overlap(slot, slot.run, now)
        return []

    def recycle(self, slot: Slot, cause: str, now: float, hint: str = "") -> list[Effect]:
        """Give a running worker a new process, as a restart does; a host that shuts down does not begin one.

        With a hint, what to do about it, the log has it as a warning.
        """
        if slot.state is not SlotState.STARTED:
            return []
        slot.recycle_at = None
        if self._shutdown.mode is not None:
            self._roster.changed(slot, now)
            return []
        log = Log("WARNING" if hint else "LOG", f"{who(slot)} is {cause}", hint=hint)
        return [*self._wishes.restart(slot, cause, now), log]

    def _overdue(self, slot: Slot, now: float) -> list[Effect]:
        if slot.state is SlotState.TERMINATING and slot.pid is None:
            return self._ends.never_born(slot, f"its birth was not answered within {reasons.seconds(ANSWER_TIMEOUT)}", now)
        if slot.state is SlotState.STARTED:
            facts = Facts(now, cause=reasons.was_not_ready(self.of_start(slot)), timeout=self._wishes.stop_timeout_of(slot))
        else:
            facts = Facts(now, cause=reasons.did_not_start(self.of_start(slot)))
        return self._roster.fire(slot, Event.OVERDUE, facts)
