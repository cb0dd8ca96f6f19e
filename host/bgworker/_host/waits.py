"""Long polls: requests that are answered when a worker starts, ends, or the caller's time is over."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, TypeVar

from bgworker._core.slots import Slot
from bgworker._core.states import SlotState
from bgworker._shm.layout import NO_PID, NOT_YET_STARTED_PID, SlotRecord
from bgworker.errors import HostError, WaitTimeout

_Key = TypeVar("_Key")
#: Deadlines of ended waits that may stay among the others before they are cleared out.
_STALE_DEADLINES: Final = 1000


def slot_record(slot: Slot) -> SlotRecord:
    """Return what the slot table shows of a slot: GetBackgroundWorkerPid's view of it."""
    if slot.state is SlotState.FREE:
        pid = NO_PID
    elif slot.pid is not None and slot.started_at is not None:
        pid = slot.pid
    elif slot.has_started_once or slot.attempt > 1 or slot.state is SlotState.WAITING_RESTART:
        pid = NO_PID
    else:
        pid = NOT_YET_STARTED_PID
    return SlotRecord(slot.generation, pid, int(slot.state is not SlotState.FREE))


def answer(slot: Slot, generation: int, target: str, forgotten_reason: str) -> dict[str, Any] | None:
    """Return the end of a wait, or None while it goes on (C36, C37).

    Args:
        slot: The slot as it is now.
        generation: The registration that is waited for.
        target: "startup" or "shutdown".
        forgotten_reason: Why the registration ended, if it did.
    """
    if slot.generation != generation or slot.state is SlotState.FREE:
        return {"status": "STOPPED", "pid": None, "reason": forgotten_reason}
    pid = slot_record(slot).pid
    if pid == NO_PID:
        return {"status": "STOPPED", "pid": None, "reason": slot.reason}
    if target == "startup" and pid != NOT_YET_STARTED_PID:
        return {"status": "STARTED", "pid": pid, "reason": ""}
    return None


@dataclass(eq=False)
class Wait:
    """One unanswered wait."""

    #: Whose it is; hashable.
    owner: object
    slotno: int
    generation: int
    target: str
    #: Monotonic; None waits as long as the host lives.
    deadline: float | None
    reply: Callable[[dict[str, Any]], None]
    refuse: Callable[[HostError], None]
    describe: str
    #: The request's, by which the answer is known to whoever asked.
    request_id: Any = None

    def carry(self) -> dict[str, Any]:
        """Return the wait as JSON values; whose it is is said elsewhere."""
        return {name: getattr(self, name) for name in ("slotno", "generation", "target", "deadline", "describe", "request_id")}


class Waits:
    """The waits of all callers, found by slot when the slot changes, by deadline, and by owner when that is gone."""

    def __init__(self) -> None:
        self._by_slot: dict[int, set[Wait]] = {}
        self._by_owner: dict[object, set[Wait]] = {}
        #: Deadlines of waits, some of which may have ended; the number keeps equal deadlines apart.
        self._deadlines: list[tuple[float, int, Wait]] = []
        self._count = count()
        self._open = 0

    def add(self, wait: Wait) -> None:
        """Remember a wait that cannot be answered yet."""
        self._by_slot.setdefault(wait.slotno, set()).add(wait)
        self._by_owner.setdefault(wait.owner, set()).add(wait)
        self._open += 1
        if len(self._deadlines) > 2 * self._open + _STALE_DEADLINES:
            self._deadlines = [entry for entry in self._deadlines if self._is_open(entry[2])]
            heapq.heapify(self._deadlines)
        if wait.deadline is not None:
            heapq.heappush(self._deadlines, (wait.deadline, next(self._count), wait))

    def all(self) -> list[Wait]:
        """Return every unanswered wait."""
        return [wait for waits in self._by_owner.values() for wait in waits]

    def count_of(self, owner: object) -> int:
        """Return how many waits of this owner are unanswered."""
        return len(self._by_owner.get(owner, ()))

    def slot_changed(self, slot: Slot, forgotten_reason: Callable[[int, int], str]) -> None:
        """Answer the waits that this change ends."""
        for wait in tuple(self._by_slot.get(slot.slotno, ())):
            end = answer(slot, wait.generation, wait.target, forgotten_reason(slot.slotno, wait.generation))
            if end is not None:
                self._remove(wait)
                wait.reply(end)

    def discard_owner(self, owner: object) -> None:
        """Forget the waits of a caller that has gone."""
        for wait in tuple(self._by_owner.get(owner, ())):
            self._remove(wait)

    def expire(self, now: float) -> None:
        """Refuse the waits whose time is over."""
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            wait = heapq.heappop(self._deadlines)[2]
            self._remove(wait)
            wait.refuse(
                WaitTimeout(f"timed out while waiting for the {wait.target} of {wait.describe}", "The worker goes on as it was.")
            )

    def next_deadline(self) -> float | None:
        """Return the earliest deadline of all waits."""
        while self._deadlines and not self._is_open(self._deadlines[0][2]):
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def _is_open(self, wait: Wait) -> bool:
        return wait in self._by_owner.get(wait.owner, ())

    def _remove(self, wait: Wait) -> None:
        if self._is_open(wait):
            self._open -= 1
            _take_out(self._by_slot, wait.slotno, wait)
            _take_out(self._by_owner, wait.owner, wait)


def _take_out(index: dict[_Key, set[Wait]], key: _Key, wait: Wait) -> None:
    index[key].discard(wait)
    if not index[key]:
        del index[key]
