"""What enters a slot: a registration, and the one that a reload puts in its place.

A registration that comes finds a slot here; one that is over leaves it through ``actions``. Made by ``slots`` and used by it alone.
"""

from __future__ import annotations

from bgworker._core import reasons
from bgworker._core.actions import Facts
from bgworker._core.conditions import Conditions
from bgworker._core.effects import Effect, Publish
from bgworker._core.order import Order
from bgworker._core.record import Slot
from bgworker._core.restart import GUARDED_INTERVAL
from bgworker._core.roster import Roster
from bgworker._core.runs import Runs
from bgworker._core.states import HAS_PROCESS, WAITS_FOR_START, Origin, SlotState
from bgworker._core.table import Event
from bgworker._core.wishes import Wishes
from bgworker._spec import BackgroundWorker

__all__ = ["Registrations"]


class Registrations:
    """Gives workers their slots, and slots other registrations. None of this is asked for while the host shuts down.

    Args:
        roster: The slots.
        order: Is told who bears which name.
        conditions: What holds the first start back.
        runs: When that of a worker with a schedule is.
        wishes: Has a process go whose registration was replaced.
    """

    def __init__(self, roster: Roster, order: Order, conditions: Conditions, runs: Runs, wishes: Wishes) -> None:
        self._roster = roster
        self._order = order
        self._conditions = conditions
        self._runs = runs
        self._wishes = wishes

    def enter(self, worker: BackgroundWorker, origin: Origin, now: float) -> tuple[Slot, list[Effect]]:
        """Give the worker the lowest free slot, under a new generation.

        Raises:
            NoFreeSlot: Every slot is taken (C14).
        """
        slot = self._roster.take_free()
        slot.generation += 1
        slot.worker = worker
        slot.origin = origin
        self._order.registered(worker)
        run = self._runs.next_of(worker, now)
        reason = self._conditions.reason_of(slot) if run is None else reasons.next_run("", run.text)
        return slot, self._roster.fire(slot, Event.REGISTER, Facts(now, reason=reason, run=run))

    def amend(self, slot: Slot, worker: BackgroundWorker, now: float) -> list[Effect]:
        """Take over what only the host acts by; a process runs on, and a wait for a restart gets no longer."""
        if slot.replacement is not None:
            slot.replacement = worker
            return []
        slot.worker = worker
        self._roster.changed(slot, now)
        if slot.state in WAITS_FOR_START and slot.restart_at is None:
            slot.reason = self._conditions.reason_of(slot)
        elif slot.restart_at is not None and not worker.is_never_restarted and worker.restart_backoff is None:
            delay = max(float(worker.bgw_restart_time or 0), GUARDED_INTERVAL)
            if now + delay < slot.restart_at:
                slot.restart_at = now + delay
                slot.reason = reasons.restarts(slot.cause, delay, slot.attempt + 1, "")
        return [Publish(slot.slotno)]

    def replace(self, slot: Slot, worker: BackgroundWorker, now: float, *, is_now: bool) -> list[Effect]:
        """Put another registration in the place of the slot's; a process goes first, now or when it goes anyway."""
        if slot.state in HAS_PROCESS:
            slot.replacement = worker
            return self._wishes.restart(slot, reasons.BY_REPLACEMENT, now) if is_now else []
        slot.worker = worker
        if (run := self._runs.next_of(worker, now)) is not None:
            slot.cause = slot.cause or reasons.BY_REPLACEMENT
            return self._runs.wait_for(slot, run, now)
        if slot.state is SlotState.NOT_YET_STARTED:
            # Nothing to stop, but it may wait for another phase now.
            self._roster.changed(slot, now)
            slot.restart_at = slot.run = None
            slot.reason = self._conditions.reason_of(slot)
            return [Publish(slot.slotno)]
        return self._wishes.restart(slot, reasons.BY_REPLACEMENT, now)
