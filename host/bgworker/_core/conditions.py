"""What holds a start back beside its own time: the database's phase, and others that the worker comes after.

It says what is missing, in words, and starts or stops nobody. Made by ``slots``; only the rooms
of ``_core`` that decide about starts use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bgworker._core import codec, reasons
from bgworker._core.effects import Effect, Publish
from bgworker._core.order import Order
from bgworker._core.record import Slot
from bgworker._core.states import NEEDED_PHASE, Phase, SlotState
from bgworker._spec import BackgroundWorker

__all__ = ["Conditions"]


class Conditions:
    """The conditions of a start. They are looked at before each launch, and never again once a worker is launched.

    Args:
        order: Knows who comes after whom.
    """

    def __init__(self, order: Order) -> None:
        self.phase = Phase.STARTING
        #: Why the database is no further; may be empty.
        self._phase_detail = ""
        self._order = order

    def carry(self) -> dict[str, Any]:
        """Return the phase as JSON values."""
        return {"phase": self.phase.value, "phase_detail": self._phase_detail}

    def resume(self, carried: Mapping[str, Any]) -> None:
        """Take in the phase, as ``carry`` has told.

        Raises:
            UnreadableError: It has not.
        """
        self.set_phase(codec.read(Phase, carried["phase"]), codec.read(str, carried["phase_detail"]))

    def set_phase(self, phase: Phase, detail: str) -> None:
        """Take in how far the database is, and why it is no further."""
        self.phase, self._phase_detail = phase, detail

    def is_held_back(self, worker: BackgroundWorker) -> bool:
        """Whether the phase that the worker needs is not reached, or is lost."""
        return self.phase < NEEDED_PHASE[worker.bgw_start_time]

    def unmet(self, worker: BackgroundWorker) -> str:
        """Return what the worker has to wait for, as its reason says it: its phase, or others; empty if nothing."""
        if self.is_held_back(worker):
            return reasons.waits_for_phase(NEEDED_PHASE[worker.bgw_start_time], self.phase, self._phase_detail)
        return self._order.unmet(worker)

    def lost(self, slot: Slot) -> str:
        """Return why a worker has to stop that asked for it, its phase being lost; empty if it has not, or is leaving."""
        is_up = slot.state in (SlotState.LAUNCHING, SlotState.STARTED) and not slot.failure
        worker = slot.registration if is_up else None
        if worker is None or not worker.stops_with_phase or not self.is_held_back(worker):
            return ""
        return reasons.phase_lost(NEEDED_PHASE[worker.bgw_start_time])

    def reason_of(self, slot: Slot) -> str:
        """Return what a slot says that only the conditions can hold back."""
        return reasons.join(slot.cause, self.unmet(slot.registration) or reasons.STARTS_AT_ONCE)

    def reword(self, slot: Slot) -> list[Effect]:
        """Have such a slot say what holds it back now, if that is not what it says."""
        reason = self.reason_of(slot)
        if reason == slot.reason:
            return []
        slot.reason = reason
        return [Publish(slot.slotno)]
