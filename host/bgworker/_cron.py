"""Cron expressions by the local wall clock: which are good, when the next time is, how many have passed.

A leaf: text and seconds since the epoch in, seconds since the epoch out; the parsing and
stepping are cronsim's. The host, the loader, the commands and workers import it, and it
imports cronsim only when there is an expression, so that nobody without one pays for it.

Local time is what libc says it is: ``TZ``, else the system's. Around a change of the clocks it
is as in Debian's cron, for expressions that name minute and hour: a time in the hour that is
skipped comes when the hour is over, one in the hour that is doubled comes once, in the first
of the two. Those with ``*`` for minute or hour go on by the minutes that really pass.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cronsim import CronSim

#: Nobody writes a longer one; each part costs time to read.
MAX_EXPRESSION: Final = 200
#: Times that have passed are counted up to here, so that a clock that leaps by years costs no years.
MAX_COUNTED: Final = 100
_FIELDS: Final = "minute, hour, day of month, month and day of week"
_EPOCH: Final = datetime(1970, 1, 1)


class _LocalTime(tzinfo):
    """The system's local time with its changes of the clocks, which a fixed offset would not have.

    zoneinfo would need the name of the zone and a database of zones; libc needs neither.
    """

    def utcoffset(self, moment: datetime | None) -> timedelta:
        """Return the offset from UTC, by ``fold`` where the clock shows a time twice (PEP 495)."""
        assert moment is not None, "there is no offset without a time"
        naive = moment.replace(tzinfo=None)
        return naive - (_EPOCH + timedelta(seconds=naive.timestamp()))

    def dst(self, moment: datetime | None) -> None:
        """Return nothing: the offset says it all."""

    def tzname(self, moment: datetime | None) -> str:
        """Return a name for messages of datetime's own."""
        return "local"

    def fromutc(self, moment: datetime) -> datetime:
        """Return the local time of a time in UTC that bears this zone."""
        seconds = (moment.replace(tzinfo=None) - _EPOCH).total_seconds()
        return datetime.fromtimestamp(seconds).replace(tzinfo=self)


LOCAL: Final = _LocalTime()


def problem(expression: str) -> str | None:
    """Return why a text is no expression that ever comes true; None if it is one."""
    if len(expression) > MAX_EXPRESSION:
        return f"is too long: at most {MAX_EXPRESSION} characters are allowed"
    fields = expression.split()
    if len(fields) != 5:
        return f"must have 5 fields, and has {len(fields)}: {_FIELDS}"
    from cronsim import CronSimError

    try:
        next(_times(expression, 0.0))
    except CronSimError as error:
        return f"has a wrong {str(error).removeprefix('Bad ').replace('-', ' ')}"
    except StopIteration:
        return "names a time that never comes"
    except (ValueError, AssertionError, RecursionError):
        # What cronsim stumbles over instead of refusing it: a number of thousands of digits, for one.
        return f"is not a cron expression; its fields are {_FIELDS}"
    return None


def next_time(expression: str, after: float) -> float:
    """Return the first time of a good expression after this one, both in seconds since the epoch."""
    return next(_times(expression, after)).timestamp()


def previous_time(expression: str, until: float) -> float:
    """Return the latest time of a good expression up to this one."""
    # cronsim steps to what lies strictly before.
    return next(_times(expression, until + 1, reverse=True)).timestamp()


def count_passed(expression: str, after: float, until: float) -> int:
    """Return how many times have come after the one and up to the other, at most MAX_COUNTED."""
    count = 0
    for moment in _times(expression, after):
        if moment.timestamp() > until or count >= MAX_COUNTED:
            break
        count += 1
    return count


def shown(at: float) -> str:
    """Return a time as people read it, with its offset from UTC: ``2026-11-21T17:00:00+00:00``."""
    return datetime.fromtimestamp(at, UTC).astimezone(LOCAL).isoformat(timespec="seconds")


def local(at: float) -> datetime:
    """Return a time as a datetime of the local time zone, with the offset of that moment."""
    return datetime.fromtimestamp(at).astimezone()


def _times(expression: str, start: float, *, reverse: bool = False) -> CronSim:
    from cronsim import CronSim

    return CronSim(expression, datetime.fromtimestamp(start, UTC).astimezone(LOCAL), reverse)
