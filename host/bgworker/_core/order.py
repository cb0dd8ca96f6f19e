"""Who may start after whom, and who is stopped before whom: ``after`` and the slots in, verdicts out.

Pure, as all of this room. A condition is looked at before each start of the worker that has it, the
later ones too, and never again once it is launched; what happens to the others then does not concern it.

    started    its function has been called in this registration, whatever has become of it since
    ready      it runs, and is ready
    finished   it has ended with success, and is registered no more

A worker that has ended with success has met all three. Of several workers of one name all must meet it.
``roster`` and ``registrations`` tell it of changes; ``conditions`` and ``shutdown`` ask it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, NamedTuple

from bgworker._core import reasons
from bgworker._core.codec import read
from bgworker._core.exits import Exit, clean
from bgworker._core.record import Slot
from bgworker._core.states import HAS_PROCESS, SlotState
from bgworker._spec import BackgroundWorker

__all__ = ["Order", "Standing"]

#: Ends that are remembered beyond those that somebody waits for.
MAX_ENDS: Final = 1000


class Standing(NamedTuple):
    """What the workers of one name have come to."""

    met: frozenset[str] = frozenset()
    #: Why it can meet nothing more: it is not registered. Empty if it is.
    absence: str = ""


class _Seen(NamedTuple):
    """What matters of a slot to others, as it was when it changed last."""

    #: Its own, and for one of several instances that of all of them.
    names: frozenset[str] = frozenset()
    after: tuple[str, ...] = ()
    met: frozenset[str] = frozenset()


#: Of a slot that is free.
_NOTHING: Final = _Seen()


class Order:
    """Knows who bears which name and who comes after it, slot by slot as they change; and how registrations ended.

    Args:
        slots: All of them.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = slots
        self._seen: dict[int, _Seen] = {}
        self._bearers: dict[str, set[int]] = {}
        self._followers: dict[str, set[int]] = {}
        #: Whether it was a success, and in words. The one thing about ``after`` that no slot knows.
        self._ends: OrderedDict[str, tuple[bool, str]] = OrderedDict()

    def carry(self) -> list[tuple[str, bool, str]]:
        """Return how registrations have ended; the rest is read off the slots."""
        return [(name, *end) for name, end in self._ends.items()]

    def resume(self, carried: Any) -> None:
        """Take in the slots as they are, and how registrations had ended, as ``carry`` has told.

        Raises:
            UnreadableError: It has not.
        """
        self._ends = OrderedDict(
            (name, (is_success, text)) for name, is_success, text in read(list[tuple[str, bool, str]], carried)
        )
        for slot in self._slots:
            self.note(slot)

    def note(self, slot: Slot) -> Collection[int]:
        """Take a slot's change in; return the slots of those whose wait it concerns."""
        worker = slot.worker
        seen = _NOTHING if worker is None or slot.state is SlotState.FREE else _Seen(_names_of(worker), worker.after, _met(slot))
        before = self._seen.get(slot.slotno, _NOTHING)
        if seen == before:
            return ()
        self._seen[slot.slotno] = seen
        _move(self._bearers, slot.slotno, before.names, seen.names)
        if before.after != seen.after:
            _move(self._followers, slot.slotno, _awaited(before), _awaited(seen))
        if not self._followers:
            return ()
        return set().union(*(self._followers.get(name, ()) for name in before.names | seen.names))

    def registered(self, worker: BackgroundWorker) -> None:
        """Note that somebody bears the name again, however the last one ended."""
        for name in _names_of(worker):
            self._ends.pop(name, None)

    def ended(self, worker: BackgroundWorker, end: Exit | None, reason: str) -> None:
        """Note the end of a registration, with the exit that it ended with; several instances have succeeded if all have."""
        is_success = end is not None and end.is_success and not end.was_requested
        for name in _names_of(worker):
            others = self._ends.pop(name, (True, "")) if name == worker.instance_of else (True, "")
            self._ends[name] = (is_success and others[0], clean(reason.partition(";")[0]) if others[0] else others[1])
        while len(self._ends) > MAX_ENDS + len(self._followers):
            self._ends.pop(next(each for each in self._ends if each not in self._followers))

    def unmet(self, worker: BackgroundWorker) -> str:
        """Return what a worker has to wait for, as its reason says it; empty if nothing."""
        if not worker.after:
            return ""
        missing = []
        for each in worker.awaited:
            standing = self.standing(each.name)
            if each.condition not in standing.met:
                missing.append((str(each), standing.absence))
        return reasons.waits_for_workers(missing) if missing else ""

    def standing(self, name: str) -> Standing:
        """Return where the workers of a name stand."""
        if bearers := self._bearers.get(name):
            return Standing(frozenset.intersection(*(self._seen[slotno].met for slotno in bearers)))
        is_success, reason = self._ends.get(name, (False, ""))
        if is_success:
            return Standing(frozenset(("started", "ready", "finished")))
        return Standing(absence=f"is over: {reason}" if reason else "is not registered")

    def held(self) -> dict[int, list[str]]:
        """Return the running workers that are not to be told yet that the host shuts down, and who is to be gone before each.

        Those are the ones that come after it and are still there. One that waited for its end needs it no more, and one
        that has got SIGKILL is not waited for: its end may take the kernel for ever. Only those that run have
        something to finish, and something that others need.
        """
        found: dict[int, list[str]] = {}
        for name, followers in self._followers.items():
            entries = {f"{name}:started", f"{name}:ready"}
            later = [
                s for s in map(self._slots.__getitem__, sorted(followers)) if _is_there(s) and entries & {*s.registration.after}
            ]
            running = [n for n in self._bearers.get(name, ()) if self._slots[n].state is SlotState.STARTED] if later else []
            found |= {slotno: [slot.name for slot in later] for slotno in running}
        return found


def _is_there(slot: Slot) -> bool:
    is_killed = slot.state is SlotState.TERMINATING and slot.kill_at is None
    return slot.state in HAS_PROCESS and not is_killed


def _met(slot: Slot) -> frozenset[str]:
    met = {"started"} if slot.has_started_once else set()
    if slot.is_ready:
        met.add("ready")
    return frozenset(met)


def _names_of(worker: BackgroundWorker) -> frozenset[str]:
    return frozenset((worker.bgw_name, worker.instance_of) if worker.instance else (worker.bgw_name,))


def _awaited(seen: _Seen) -> set[str]:
    return {entry.rpartition(":")[0] for entry in seen.after}


def _move(index: dict[str, set[int]], slotno: int, old: AbstractSet[str], new: AbstractSet[str]) -> None:
    for name in old - new:
        index[name].discard(slotno)
        if not index[name]:
            del index[name]
    for name in new - old:
        index.setdefault(name, set()).add(slotno)
