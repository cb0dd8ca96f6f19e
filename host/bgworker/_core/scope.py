"""Who goes down with a crash (C31), and which of these are not gone yet: pure, from the slots to those that it concerns.

A crashed worker may have left any memory that it could write half-written. A worker that is
killed because of it may have been in the middle of writing its own other segments, so the
scope is closed: whoever shares a segment with somebody in the scope is in the scope.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from bgworker._core.record import Segment, Slot
from bgworker._core.states import HAS_PROCESS

__all__ = ["CrashScope", "Segment", "in_scope", "unfinished"]


class CrashScope(Enum):
    """How far a crash reaches; the values are those of workers.toml."""

    #: Those attached to a segment that somebody in the scope is attached to.
    ATTACHED = "attached"
    #: Every worker that has a process, as in PostgreSQL.
    CLUSTER = "cluster"


def in_scope(slots: Iterable[Slot], crashed: Slot, scope: CrashScope) -> tuple[list[Slot], frozenset[Segment]]:
    """Return the slots that a crash takes down, the crashed one not included, and the segments that are not to be trusted.

    Args:
        slots: All of them, still as they were when it crashed.
        crashed: The one whose process crashed.
        scope: As configured.
    """
    others = [slot for slot in slots if slot is not crashed and slot.state in HAS_PROCESS]
    if scope is CrashScope.CLUSTER:
        return others, crashed.segments.union(*(slot.segments for slot in others))
    damaged = crashed.segments
    found: list[Slot] = []
    while more := [slot for slot in others if slot not in found and slot.segments & damaged]:
        found += more
        damaged = damaged.union(*(slot.segments for slot in more))
    # In the order of their slots, however they were found.
    return [slot for slot in others if slot in found], damaged


def unfinished(slots: Iterable[Slot]) -> set[int]:
    """Return the reinitialisations that have a process left: nobody of theirs starts before the last one is gone."""
    return {slot.reinitialisation for slot in slots if slot.reinitialisation and slot.state in HAS_PROCESS}
