"""How the view writes durations, sizes, instants and states: short, and the same everywhere.

Pure, needs no rich. Imported by the view and by the verbs that print facts.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from bgworker._text import printable

_DAY: Final = 86_400
_HOUR: Final = 3600


def duration(seconds: float) -> str:
    """Return a duration in at most six cells: ``6s``, ``2m10s``, ``3h04m``, ``3d04h``, ``120d``.

    A clock that was set back must not show as a negative age, so anything below zero is ``0s``.
    """
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // 60:02}m"
    if whole < 100 * _DAY:
        return f"{whole // _DAY}d{whole % _DAY // _HOUR:02}h"
    return f"{whole // _DAY}d"


def exact_duration(seconds: float) -> str:
    """Return a duration for a sentence: with a tenth where a tenth matters."""
    seconds = max(0.0, seconds)
    return f"{seconds:.1f}s" if seconds < 9.95 else duration(seconds + 0.5)


def size(count: float) -> str:
    """Return bytes in at most five cells: ``980K``, ``14M``, ``1.2G``."""
    value = count / 1024
    for unit in "KMG":
        if value < 999.5:
            return f"{value:.1f}{unit}" if unit == "G" and value < 9.95 else f"{value:.0f}{unit}"
        value /= 1024
    return f"{value:.1f}T" if value < 9.95 else f"{value:.0f}T"


def percent(value: float) -> str:
    """Return a share of one processor in at most four cells."""
    return f"{min(value, 999):.0f}%"


def instant(text: Any) -> float | None:
    """Return seconds since the epoch for an RFC 3339 text of status; None for null or what is no instant."""
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def clock(text: Any) -> str:
    """Return the time of day of an RFC 3339 text in this machine's zone, for event lines."""
    at = instant(text)
    return "--:--:--" if at is None else f"{datetime.fromtimestamp(at):%H:%M:%S}"


def clean(value: Any) -> str:
    """Return what somebody else wrote as one line that a terminal shows and does not obey."""
    return printable(" ".join(str(value).split())) if value is not None else ""


#: How a reason starts that already says how the process ended.
_SAID: Final = ("exit ", "signal ", "crash: ", "stuck: ", "failed to start")


def is_success(code: Any, reason: str) -> bool:
    """Whether an exit counts as a success: code 0 of a function that ran, or one of the worker's success_exit_codes."""
    return (code == 0 and not reason.startswith(("failed to start", "stuck: "))) or reason == f"exit {code} (success)"


def how_it_ended(last_exit: Any) -> str:
    """Return an exit in the view's words: ``exit 1: connection refused``, ``signal 9 (Killed)``; empty for none."""
    if not isinstance(last_exit, dict):
        return ""
    code, signum, reason = last_exit.get("code"), last_exit.get("signal"), clean(last_exit.get("reason") or "")
    if reason.startswith(_SAID):
        return reason
    if signum is not None:
        head = f"signal {clean(signum)}"
    elif code is not None:
        head = f"exit {clean(code)}"
    else:
        return reason
    return f"{head}: {reason}" if reason else head
