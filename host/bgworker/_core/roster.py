"""All slots of the host, and the one way in which a slot changes its state.

Everything that happens to a slot comes here as an event of ``table``: the action runs, the state
changes, and whoever keeps an account of the slots (``order``, ``agenda``) hears of it. Whether
an event is to be fired is decided above; nothing here knows why. Made by ``slots``; the rooms of
``_core`` that fire events use it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any, Final

from bgworker._core import codec
from bgworker._core.actions import ACTIONS, Facts, who
from bgworker._core.agenda import Agenda
from bgworker._core.effects import Effect, Log
from bgworker._core.order import Order
from bgworker._core.record import Slot
from bgworker._core.states import SlotState
from bgworker._core.table import Event, Rejection, look_up
from bgworker.errors import NoFreeSlot

__all__ = ["Roster", "no_free_slot", "rejected"]

#: How many types the refusal of a registration names as holders of the slots.
NAMED_HOLDERS: Final = 5


class Roster:
    """The slots: who holds which, and what happens to it.

    Args:
        slots: All of them, none registered yet. Their states change here alone.
        order: Is told of each change.
        agenda: Is told of each change.
    """

    def __init__(self, slots: list[Slot], order: Order, agenda: Agenda) -> None:
        self.slots = slots
        self._order = order
        self._agenda = agenda
        #: No slot below it is free.
        self._first_free = 0

    def carry(self) -> list[Any]:
        """Return the slots that were ever used, as JSON values."""
        return [codec.write(slot) for slot in self.slots if slot.generation]

    def resume(self, carried: Any) -> None:
        """Take in the slots of another roster of the same size, as ``carry`` has told.

        Raises:
            UnreadableError: It has not.
        """
        for slot in codec.read(list[Slot], carried):
            if slot.slotno >= len(self.slots) or (slot.worker is None) is not (slot.state is SlotState.FREE):
                raise codec.UnreadableError(f"slot {slot.slotno} cannot be one of {len(self.slots)}, or contradicts itself")
            self.slots[slot.slotno] = slot
        self._first_free = next((slot.slotno for slot in self.slots if slot.state is SlotState.FREE), len(self.slots))

    def find(self, slotno: int, generation: int, attempt: int | None = None) -> Slot | None:
        """Return the slot if it still holds this registration, and is at this launch of it."""
        slot = self.slots[slotno] if 0 <= slotno < len(self.slots) else None
        if slot is None or slot.state is SlotState.FREE or slot.generation != generation:
            return None
        return slot if attempt is None or slot.attempt == attempt else None

    def take_free(self) -> Slot:
        """Return the lowest free slot, which is then to be registered.

        Raises:
            NoFreeSlot: Every slot is taken (C14).
        """
        slot = next((slot for slot in islice(self.slots, self._first_free, None) if slot.state is SlotState.FREE), None)
        if slot is None:
            raise no_free_slot(self.slots)
        self._first_free = slot.slotno + 1
        return slot

    def fire(self, slot: Slot, event: Event, facts: Facts) -> list[Effect]:
        """Do what the table says; a rejected event changes nothing."""
        found = look_up(slot.state, event)
        if isinstance(found, Rejection):
            return [rejected(slot, event, found)]
        worker = slot.worker
        effects = ACTIONS[found.action](slot, facts)
        if worker is not None and found.next_state is SlotState.FREE:
            self._order.ended(worker, facts.last_exit, facts.reason)
        slot.state = found.next_state
        if found.next_state is SlotState.FREE:
            self._first_free = min(self._first_free, slot.slotno)
        self.changed(slot, facts.now)
        return effects

    def changed(self, slot: Slot, now: float) -> None:
        """Have this slot's deadline looked at again, and those of the slots that come after it."""
        self._agenda.changed((slot.slotno, *self._order.note(slot)), now)

    def changed_all(self, now: float) -> None:
        """Have every slot's deadline looked at again."""
        self._agenda.changed_all(now)


def rejected(slot: Slot, event: Event, rejection: Rejection) -> Log:
    """Return the trace that an ignored event leaves; some come from processes that may say anything."""
    return Log("DEBUG", f'ignored event "{event.value}" of {who(slot)}: {rejection.value}')


def no_free_slot(slots: Sequence[Slot]) -> NoFreeSlot:
    """Return the refusal in PostgreSQL's words, and who holds the slots."""
    registered = [slot.registration for slot in slots if slot.worker is not None]
    holders = Counter((worker.bgw_type, worker.bgw_library_name) for worker in registered).most_common()
    named = [f"{bgw_type} ({count}{f', {library}' if library else ''})" for (bgw_type, library), count in holders[:NAMED_HOLDERS]]
    if len(holders) > NAMED_HOLDERS:
        named.append(f"others ({sum(count for _, count in holders[NAMED_HOLDERS:])})")
    return NoFreeSlot(
        "too many background workers",
        f"Up to {len(slots)} background workers can be registered with the current settings."
        f" The slots are held by {', '.join(named) or 'nobody'}.",
        'Consider increasing the configuration parameter "max_worker_processes".',
    )
