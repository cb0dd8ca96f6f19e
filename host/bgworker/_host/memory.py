"""How much memory workers use, for those with a ``max_memory``: asked of the kernel, on a timer.

The one thing of the host that looks at the clock instead of waiting for an event, because no
event tells of memory. Without a running worker that has the key there is no timer. Reads
/proc/PID/statm of the host's own unreaped children, whose pids cannot be anybody else's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from bgworker._core import reasons
from bgworker._core.slots import Slot
from bgworker._core.states import SlotState

#: Seconds between two looks.
LOOK_INTERVAL: Final = 2.0
#: A worker that is too big within so many seconds of its start needs that much: a new process will not use less.
AT_ONCE: Final = 5.0
HINT: Final = "Raise max_memory: as it is, each new process is stopped soon after its start."
_PAGE_SIZE: Final = os.sysconf("SC_PAGE_SIZE")


class MemoryWatch:
    """Finds the workers that use more than they may.

    Args:
        slots: The machine's; only read.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = slots
        self._look_at: float | None = None

    def started(self, slot: Slot, now: float) -> None:
        """Take note that a worker runs."""
        if slot.worker is not None and slot.worker.max_memory is not None and self._look_at is None:
            self._look_at = now + LOOK_INTERVAL

    def carry(self) -> float | None:
        """Return when the next look is."""
        return self._look_at

    def resume(self, carried: float | None) -> None:
        """Look when ``carry`` has told."""
        self._look_at = carried

    def next_deadline(self) -> float | None:
        """Return when to look; None while nobody is to be looked at."""
        return self._look_at

    def too_big(self, now: float) -> list[tuple[int, int, str, str]]:
        """Return slot and generation of each worker that is to be recycled, with reason and hint, if it is time to look."""
        if self._look_at is None or now < self._look_at:
            return []
        watched = [slot for slot in self._slots if slot.state is SlotState.STARTED and slot.registration.max_memory is not None]
        self._look_at = now + LOOK_INTERVAL if watched else None
        found = []
        for slot in watched:
            limit = slot.registration.max_memory
            used = 0 if slot.pid is None else resident(slot.pid)
            # A text is made a number when the worker is registered.
            if isinstance(limit, int) and used > limit:
                age = AT_ONCE if slot.started_at is None else now - slot.started_at
                why = reasons.too_big(used, limit, age if age < AT_ONCE else None)
                found.append((slot.slotno, slot.generation, why, HINT if age < AT_ONCE else ""))
        return found


def resident(pid: int) -> int:
    """Return the bytes of memory that a process has resident; 0 where that is not known, or it has just ended."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read(256).split()[1]) * _PAGE_SIZE
    except (OSError, ValueError, IndexError):
        return 0
