"""The end of the host: in which mode it stops, who is told to go when, and for whom it waits.

In every mode those without a process are forgotten at once (C38). A smart shutdown spares the rest and waits
for live handles and for workers that never restart, then goes on as a fast one. A fast one tells everybody but
those that others come after: each of these when the last of the others is gone. An immediate one tells
everybody, by the short ladder. Made by ``slots``; it imports no room that begins or ends lives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bgworker._core import codec, reasons
from bgworker._core.effects import Effect, Log, Publish
from bgworker._core.order import Order
from bgworker._core.record import Slot
from bgworker._core.roster import Roster
from bgworker._core.states import HAS_PROCESS, ShutdownMode, SlotState
from bgworker._core.wishes import Wishes

__all__ = ["Shutdown"]


class Shutdown:
    """Stops the workers, in order.

    Args:
        roster: The slots.
        order: Knows who is to be gone before whom.
        wishes: Tells workers to go.
    """

    def __init__(self, roster: Roster, order: Order, wishes: Wishes) -> None:
        self._roster = roster
        self._order = order
        self._wishes = wishes
        #: The mode in force; None while the host runs. It only ever gets stricter.
        self.mode: ShutdownMode | None = None
        #: Handles that connections hold; a smart shutdown waits for them.
        self._live_handles = 0
        #: Running workers that a fast shutdown has not told yet, and who is to be gone before each.
        self._held: dict[int, list[str]] = {}

    def carry(self) -> dict[str, Any]:
        """Return how far the shutdown is, as JSON values."""
        return {
            "shutdown": None if self.mode is None else self.mode.value,
            "live_handles": self._live_handles,
            "held": [[slotno, names] for slotno, names in self._held.items()],
        }

    def resume(self, carried: Mapping[str, Any]) -> None:
        """Go on where ``carry`` has told.

        Raises:
            UnreadableError: It has not.
        """
        self.mode = None if carried["shutdown"] is None else codec.read(ShutdownMode, carried["shutdown"])
        self._live_handles = codec.read(int, carried["live_handles"])
        self._held = dict(codec.read(list[tuple[int, list[str]]], carried["held"]))

    @property
    def is_drained(self) -> bool:
        """Whether the host shuts down and waits for nobody any more."""
        if self.mode is None or self.mode is ShutdownMode.SMART:
            return False
        return all(slot.state is SlotState.FREE for slot in self._roster.slots)

    def begin(self, mode: ShutdownMode, now: float) -> list[Effect]:
        """Begin to stop, or stop in a stricter mode; a mode that is not stricter changes nothing."""
        if self.mode is not None and mode <= self.mode:
            return []
        self.mode = mode
        self._roster.changed_all(now)
        effects: list[Effect] = [Log("LOG", f"received {mode.name.lower()} shutdown request")]
        effects += self._stop_all(mode, now)
        if mode is ShutdownMode.SMART and (awaited := self._awaited()):
            effects[0] = Log("LOG", "received smart shutdown request", f"It waits for {awaited}.")
        return effects + self.end_smart(now)

    def set_live_handles(self, count: int, now: float) -> list[Effect]:
        """Take the number of live handles that connections hold."""
        self._live_handles = count
        return self.end_smart(now)

    def end_smart(self, now: float) -> list[Effect]:
        """Go on as a fast shutdown once a smart one waits for nobody."""
        if self.mode is not ShutdownMode.SMART or self._awaited():
            return []
        self.mode = ShutdownMode.FAST
        log = Log("LOG", "smart shutdown waits for nobody any more and goes on as a fast one")
        return [log, *self._stop_all(ShutdownMode.FAST, now)]

    def stop_held(self, now: float) -> list[Effect]:
        """Go on with a fast shutdown: tell those whose dependents are gone by now."""
        if not self._held or self.mode is not ShutdownMode.FAST:
            return []
        before, self._held = self._held, self._order.held()
        effects: list[Effect] = []
        for slot in (self._roster.slots[slotno] for slotno in before):
            if slot.state is not SlotState.STARTED:
                continue
            if slot.slotno not in self._held:
                effects += self._wishes.stop(slot, now)
            elif self._held[slot.slotno] != before[slot.slotno]:
                effects += self._hold(slot)
        return effects

    def stop_waiting(self, slot: Slot, now: float) -> list[Effect]:
        """Stop a worker that began to wait for its start when the shutdown had begun: it has nothing to finish."""
        return self._wishes.stop(slot, now) if self.mode is not None and slot.is_waiting else []

    def _stop_all(self, mode: ShutdownMode, now: float) -> list[Effect]:
        """Tell everybody that the mode tells."""
        tell = self._wishes.quit if mode is ShutdownMode.IMMEDIATE else self._wishes.stop
        effects: list[Effect] = []
        self._held = self._order.held() if mode is ShutdownMode.FAST else {}
        for slot in self._roster.slots:
            # One that still waits for its start has nothing to finish, though it has a process.
            is_spared = mode is ShutdownMode.SMART and slot.state in HAS_PROCESS and not slot.is_waiting
            if slot.slotno in self._held:
                effects += self._hold(slot)
            elif slot.state is not SlotState.FREE and not is_spared:
                effects += tell(slot, now)
        return effects

    def _hold(self, slot: Slot) -> list[Effect]:
        slot.reason = reasons.held_for(self._held[slot.slotno])
        return [Publish(slot.slotno)]

    def _awaited(self) -> str:
        """Return whom a smart shutdown waits for, or nothing."""
        slots = (slot for slot in self._roster.slots if slot.state is not SlotState.FREE)
        names = [f'"{slot.name}"' for slot in slots if slot.registration.is_never_restarted]
        return reasons.awaited(self._live_handles, names)
