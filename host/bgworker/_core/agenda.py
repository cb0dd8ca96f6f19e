"""When each slot needs the machine's attention: the earliest instant, and who is due, without a walk through all slots.

A heap of instants, some of which are out of date; a slot's own entry in ``_instants`` says
which one counts. Only ``slots`` uses it.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

__all__ = ["Agenda"]


class Agenda:
    """The slots' deadlines. Whoever changes a slot says so; what it then waits for is asked once, when it is needed."""

    def __init__(self) -> None:
        #: Every slot must be asked.
        self.is_all_changed = True
        self._changed: set[int] = set()
        self._instants: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []

    def changed(self, slotno: int) -> None:
        """Have this slot asked again."""
        self._changed.add(slotno)

    def changed_all(self) -> None:
        """Have every slot asked again."""
        self.is_all_changed = True

    def take_changed(self) -> set[int]:
        """Return the slots to be asked; each is to be answered with ``set``."""
        changed, self._changed = self._changed, set()
        return changed

    def set(self, slotno: int, instant: float | None) -> None:
        """Enter when a slot is due; None for never."""
        if instant is None:
            self._instants.pop(slotno, None)
        elif self._instants.get(slotno) != instant:
            self._instants[slotno] = instant
            heapq.heappush(self._heap, (instant, slotno))

    def set_all(self, instants: Mapping[int, float | None]) -> None:
        """Enter when every slot is due; those left out never are."""
        self.is_all_changed = False
        self._changed.clear()
        self._instants = {slotno: instant for slotno, instant in instants.items() if instant is not None}
        self._heap = [(instant, slotno) for slotno, instant in self._instants.items()]
        heapq.heapify(self._heap)

    def earliest(self) -> float | None:
        """Return the earliest instant, or None."""
        while self._heap:
            instant, slotno = self._heap[0]
            if self._instants.get(slotno) == instant:
                return instant
            heapq.heappop(self._heap)
        return None

    def take_due(self, now: float) -> list[int]:
        """Return the slots that are due, in their order, and have them asked again."""
        due = set()
        while (instant := self.earliest()) is not None and instant <= now:
            _instant, slotno = heapq.heappop(self._heap)
            del self._instants[slotno]
            due.add(slotno)
        self._changed |= due
        return sorted(due)
