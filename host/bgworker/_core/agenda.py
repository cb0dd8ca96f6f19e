"""When each slot needs the machine's attention: the earliest instant, and who is due, without a walk through all slots.

A thousand slots must not be looked at because of one: what each waits for is kept, and asked
again when something changed. The agenda reads slots and changes none; what is to be done with
one that is due is a matter of ``slots`` and ``timeouts``. ``roster`` tells it of changes, ``slots`` asks it.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence

from bgworker._core import reasons
from bgworker._core.conditions import Conditions
from bgworker._core.record import Slot
from bgworker._core.scope import unfinished
from bgworker._core.states import WAITS_FOR_START, SlotState

__all__ = ["Agenda", "Instants"]


class Agenda:
    """Which slot is due when. Whoever changes a slot says so; what it then waits for is asked once, when it is needed.

    Args:
        slots: All of them.
        conditions: What holds starts back.
    """

    def __init__(self, slots: Sequence[Slot], conditions: Conditions) -> None:
        self._slots = slots
        self._conditions = conditions
        self._instants = Instants()
        #: The latest ``now`` heard of: what "at once" means.
        self._now = float("-inf")
        self._is_all_changed = True
        self._changed: set[int] = set()
        #: Whether slots may wait for the end of each other (C31): then no slot's deadline is its own matter alone.
        self._has_groups = False

    def changed(self, slotnos: Collection[int], now: float) -> None:
        """Have these slots asked again."""
        if now > self._now:
            self._now = now
        self._changed.update(slotnos)

    def changed_all(self, now: float) -> None:
        """Have every slot asked again."""
        if now > self._now:
            self._now = now
        self._is_all_changed = True

    def earliest(self) -> float | None:
        """Return the instant at which the first slot is due, which may lie in the past, or None for never."""
        self._bring_up_to_date()
        return self._instants.earliest()

    def take_due(self, now: float) -> list[Slot]:
        """Return the slots that are due, in their order; each is asked again after this."""
        if now > self._now:
            self._now = now
        self._bring_up_to_date()
        due = self._instants.take_due(now)
        self._changed.update(due)
        return [self._slots[slotno] for slotno in due]

    def _bring_up_to_date(self) -> None:
        if self._is_all_changed or self._has_groups:
            self._is_all_changed = False
            self._has_groups = any(slot.reinitialisation for slot in self._slots)
            going = unfinished(self._slots)
            slots = (s for s in self._slots if s.state not in WAITS_FOR_START or s.reinitialisation not in going)
            self._instants.set_all({slot.slotno: self._deadline_of(slot) for slot in slots})
        else:
            for slotno in self._changed:
                self._instants.set(slotno, self._deadline_of(self._slots[slotno]))
        self._changed.clear()

    def _deadline_of(self, slot: Slot) -> float | None:
        if slot.state is SlotState.STARTED:
            overlap_at = None if slot.run is None else slot.run.at
            return min((at for at in (slot.stuck_at, slot.recycle_at, overlap_at, slot.kill_at) if at is not None), default=None)
        if slot.state not in WAITS_FOR_START:
            return slot.kill_at
        if slot.restart_at is not None:
            return slot.restart_at
        if not slot.registration.after:
            return None if self._conditions.is_held_back(slot.registration) else self._now
        unmet = self._conditions.unmet(slot.registration)
        # Whom it waits for changes when others come and go, and its reason with it.
        return None if unmet and slot.reason == reasons.join(slot.cause, unmet) else self._now


class Instants:
    """The earliest of many instants, one for each slot.

    A heap, some of whose entries are out of date; what ``_by_slot`` has of a slot says which one counts.
    """

    def __init__(self) -> None:
        self._by_slot: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []

    def set(self, slotno: int, instant: float | None) -> None:
        """Enter when a slot is due; None for never."""
        if instant is None:
            self._by_slot.pop(slotno, None)
        elif self._by_slot.get(slotno) != instant:
            self._by_slot[slotno] = instant
            heapq.heappush(self._heap, (instant, slotno))

    def set_all(self, instants: Mapping[int, float | None]) -> None:
        """Enter when every slot is due; those left out never are."""
        self._by_slot = {slotno: instant for slotno, instant in instants.items() if instant is not None}
        self._heap = [(instant, slotno) for slotno, instant in self._by_slot.items()]
        heapq.heapify(self._heap)

    def earliest(self) -> float | None:
        """Return the earliest instant, or None."""
        while self._heap:
            instant, slotno = self._heap[0]
            if self._by_slot.get(slotno) == instant:
                return instant
            heapq.heappop(self._heap)
        return None

    def take_due(self, now: float) -> list[int]:
        """Take out the slots that are due, and return them in their order."""
        due = set()
        while (instant := self.earliest()) is not None and instant <= now:
            _instant, slotno = heapq.heappop(self._heap)
            del self._by_slot[slotno]
            due.add(slotno)
        return sorted(due)
