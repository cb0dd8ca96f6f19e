"""What the slot machine asks about schedules: instants and texts; the calendar itself is outside of this room.

Pure: a record and a protocol. ``_host.schedules`` answers by the wall clock, tests by a list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

__all__ = ["MOST_COUNTED", "NoTimetable", "Run", "Timetable"]

#: A calendar counts missed runs no further (MAX_COUNTED of ``_cron``).
MOST_COUNTED: Final = 100


@dataclass(frozen=True, slots=True)
class Run:
    """The next time of a schedule."""

    #: Monotonic, by the wall clock as it stood when this was asked.
    at: float
    #: As people read it, with its offset from UTC.
    text: str
    #: The same by the wall clock, whatever that says later; for the timetable alone.
    wall: float = 0.0


class Timetable(Protocol):
    """Turns a schedule, which is a time of day, into instants of the machine's clock."""

    def next_run(self, schedule: str, now: float) -> Run:
        """Return the first time after now."""

    def has_come(self, run: Run) -> bool:
        """Whether the wall clock has passed this time, for when it has leapt."""

    def missed(self, schedule: str, since: float, now: float) -> int:
        """Return how many times have come since, up to now, at most MOST_COUNTED; both monotonic."""


class NoTimetable:
    """For a machine that is not given any worker with a schedule."""

    def next_run(self, schedule: str, now: float) -> Run:
        """Refuse: nobody knows."""
        raise AssertionError("a worker with a schedule needs a timetable")

    def has_come(self, run: Run) -> bool:
        """Refuse: nobody knows."""
        raise AssertionError("a worker with a schedule needs a timetable")

    def missed(self, schedule: str, since: float, now: float) -> int:
        """Refuse: nobody knows."""
        raise AssertionError("a worker with a schedule needs a timetable")
