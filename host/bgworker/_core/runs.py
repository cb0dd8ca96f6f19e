"""The runs of workers that have a schedule: the next one, those that were missed, and what a clock that was set does to them.

When the times are only the ``timetable`` knows, and launches come from ``slots`` alone: a worker that
waits for a run has it as its ``restart_at``, as one that waits for any other restart. Made by ``slots``;
the rooms of ``_core`` that begin and end lives use it.
"""

from __future__ import annotations

from bgworker._core import reasons
from bgworker._core.actions import who
from bgworker._core.effects import Effect, Log, Publish
from bgworker._core.record import Slot
from bgworker._core.roster import Roster
from bgworker._core.states import WAITS_FOR_START, SlotState
from bgworker._core.timetable import Run, Timetable
from bgworker._spec import BackgroundWorker

__all__ = ["Runs"]


class Runs:
    """Has workers wait for their next run, and says so when one comes while they still run.

    Args:
        roster: The slots.
        timetable: Knows when the times of schedules are.
    """

    def __init__(self, roster: Roster, timetable: Timetable) -> None:
        self._roster = roster
        self._timetable = timetable

    def next_of(self, worker: BackgroundWorker, now: float) -> Run | None:
        """Return the next run; None for a worker without a schedule."""
        return None if worker.schedule is None else self._timetable.next_run(worker.schedule, now)

    def missed_by(self, slot: Slot, now: float) -> int:
        """Return how many runs have come since its launch."""
        schedule = slot.registration.schedule
        return 0 if schedule is None else self._timetable.missed(schedule, slot.launched_at, now)

    def wait_for(self, slot: Slot, run: Run, now: float) -> list[Effect]:
        """Have a worker without a process wait for another time than before."""
        self._roster.changed(slot, now)
        slot.run = run
        slot.restart_at = run.at
        slot.reason = reasons.next_run(slot.cause, run.text)
        return [Publish(slot.slotno)]

    def overlap(self, slot: Slot, run: Run, now: float) -> list[Effect]:
        """Say once that a time of its schedule came while it still runs; how many it were is told at its end."""
        self._roster.changed(slot, now)
        slot.run = None
        slot.reason = reasons.overlaps(run.text)
        detail = "It is not started a second time. Its next run is at the first time after its end."
        hint = "Give it more time between two runs, or a watchdog if it should have been done."
        log = Log("WARNING", f"{who(slot)} missed its run at {run.text}: it is still running", detail, hint)
        return [Publish(slot.slotno), log]

    def clock_was_set(self, now: float) -> list[Effect]:
        """Find the times anew: the wall clock has leapt."""
        self._roster.changed_all(now)
        effects: list[Effect] = []
        for slot in self._roster.slots:
            if slot.run is None:
                continue
            is_waiting = slot.state in WAITS_FOR_START
            if is_waiting and self._timetable.has_come(slot.run):
                # The clock leapt over it, or the machine slept: once, at once. What waits for the phase alone goes on to.
                slot.restart_at = None if slot.restart_at is None else now
            elif (run := self.next_of(slot.registration, now)) is not None:
                # What is due already, or was asked for, is launched in this turn.
                if is_waiting and slot.restart_at is not None and slot.restart_at > now:
                    effects += self.wait_for(slot, run, now)
                elif slot.state is SlotState.STARTED:
                    slot.run = run
        return effects
