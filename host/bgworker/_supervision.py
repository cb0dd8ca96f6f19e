"""The supervision keys of a registration: what each may hold, and in which form the host keeps it.

Pure: values in, values or a problem out. ``_spec`` asks here about the keys that say how a worker
is watched, stopped and brought back; it, the slot machine and workers.toml know their values from
here. Of ours it imports what cron expressions and ``after`` are.
"""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from bgworker import _after, _cron
from bgworker._text import printable

#: One day, the bound of every timer of a registration.
_LONGEST: Final = 86_400.0
#: What a process can address on 64-bit Linux.
_MOST_BYTES: Final = 1 << 47
_SIZE: Final = re.compile(r"([0-9]{1,15})\s*([KMG]?)i?B?", re.IGNORECASE)
#: The values of restart_on; the first is the default, and PostgreSQL's way (C29-C31).
RESTART_ON: Final = ("crash", "always")
#: What stop_signal may be; the first is the default. Those that stop, continue or fault a process end nothing in good order.
STOP_SIGNALS: Final = ("TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "WINCH", "ABRT", "KILL")
#: restart_backoff: each key with its default, least and greatest value.
BACKOFF: Final[dict[str, tuple[float, float, float]]] = {
    #: Each wait is this many times the one before.
    "factor": (2.0, 1.0, 100.0),
    #: Seconds; no wait grows longer.
    "ceiling": (300.0, 1.0, _LONGEST),
    #: What is added at random to each wait, at most this part of it.
    "jitter": (0.1, 0.0, 1.0),
    #: Seconds of running after which the next failure counts as the first.
    "healthy_after": (60.0, 0.001, _LONGEST),
}


#: The values of ready; the first is the default.
READY: Final = ("started", "notify")


#: Most instances of one worker.
MOST_INSTANCES: Final = 1000


class Problem(NamedTuple):
    """Why a key cannot be as it is."""

    key: str
    reason: str
    detail: str = ""
    hint: str = ""


def is_number(value: object) -> bool:
    """Whether the value is a finite number; a boolean is none."""
    # An integer beyond every float is compared, never converted: isfinite() would raise.
    return isinstance(value, int | float) and not isinstance(value, bool) and (isinstance(value, int) or math.isfinite(value))


def stop_signum(name: str) -> int:
    """Return the number of a stop_signal."""
    return int(signal.Signals[f"SIG{name}"])


def _restart_on(value: Any) -> Any:
    if value not in RESTART_ON:
        raise ValueError(f"must be one of {', '.join(RESTART_ON)}")
    return value


def _ready(value: Any) -> Any:
    if value not in READY:
        raise ValueError(f"must be one of {', '.join(READY)}")
    return value


def _instance(value: Any) -> Any:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_INSTANCES:
        raise ValueError(f"must be a number from 0 to {MOST_INSTANCES}")
    return value


def _restart_backoff(value: Any) -> Any:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError("must be a table")
    for key in value:
        if key not in BACKOFF:
            raise ValueError(f'has no key "{printable(str(key))}"; its keys are {", ".join(BACKOFF)}')
    filled = {}
    for key, (default, least, greatest) in BACKOFF.items():
        given = value.get(key, default)
        if not is_number(given) or not least <= given <= greatest:
            raise ValueError(f"{key} must be a number from {least:g} to {greatest:g}")
        filled[key] = float(given)
    return filled


def _success_exit_codes(value: Any) -> Any:
    is_list = isinstance(value, list | tuple)
    if not is_list or not all(isinstance(code, int) and not isinstance(code, bool) and 0 <= code <= 255 for code in value):
        raise ValueError("must be a list of exit codes from 0 to 255")
    return tuple(sorted({*value}))


def _essential(value: Any) -> Any:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _stop_signal(value: Any) -> Any:
    name = value.removeprefix("SIG") if isinstance(value, str) else ""
    if name not in STOP_SIGNALS:
        raise ValueError(f"must be one of {', '.join(STOP_SIGNALS)}")
    return name


def _seconds(value: Any) -> Any:
    if value is not None and not (is_number(value) and 0 < value <= _LONGEST):
        raise ValueError("must be seconds above 0, to one day")
    return value


def _span(value: Any) -> Any:
    # watchdog: a worker tells of its progress four times in each span, and a machine under load is late by tenths of a second.
    # max_age: its restarts follow at once, and no crash-loop guard slows them down.
    if value is not None and not (is_number(value) and 1 <= value <= _LONGEST):
        raise ValueError("must be seconds from 1 to one day")
    return value


def _schedule(value: Any) -> Any:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError('must be a cron expression, such as "*/15 * * * *"')
    if (wrong := _cron.problem(value)) is not None:
        raise ValueError(wrong)
    return " ".join(value.split())


def _bytes(value: Any) -> Any:
    if value is None:
        return None
    count = value
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())) is not None:
        count = int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2].upper()]
    if not isinstance(count, int) or isinstance(count, bool) or not 0 < count <= _MOST_BYTES:
        raise ValueError('must be a number of bytes above 0, or a text such as "200M"')
    return count


#: Each supervision key with the function that returns its value as the host keeps it, or raises ValueError with the reason.
_KEYS: Final[dict[str, Callable[[Any], Any]]] = {
    "restart_on": _restart_on,
    "restart_backoff": _restart_backoff,
    "success_exit_codes": _success_exit_codes,
    "essential": _essential,
    "stop_signal": _stop_signal,
    "start_timeout": _seconds,
    "max_age": _span,
    "max_memory": _bytes,
    "watchdog": _span,
    "schedule": _schedule,
    "after": _after.normalised,
    "ready": _ready,
    "instance": _instance,
}
KEYS: Final = tuple(_KEYS)


def normalised(values: dict[str, Any], restart_time: float | None) -> dict[str, Any] | Problem:
    """Return the supervision keys as the host keeps them, or what is wrong with the first that is wrong.

    Args:
        values: All of KEYS.
        restart_time: The worker's bgw_restart_time in seconds; None if it is never restarted.
    """
    kept = {}
    for key, keep in _KEYS.items():
        try:
            kept[key] = keep(values[key])
        except ValueError as error:
            # The value itself is not repeated in the primary: it may be long, and anything.
            return Problem(key, str(error), f"It is {values[key]!r:.200}.")
    return _contradiction(kept, restart_time) or kept


def _contradiction(kept: dict[str, Any], restart_time: float | None) -> Problem | None:
    """Return the first key that does not go together with bgw_restart_time."""
    if kept["schedule"] is not None and (problem := _beside_schedule(kept, restart_time)) is not None:
        return problem
    backoff = kept["restart_backoff"]
    if restart_time is None and kept["restart_on"] == "always":
        return Problem(
            "restart_on",
            "asks for a restart that bgw_restart_time rules out",
            'restart_on is "always", and bgw_restart_time is BGW_NEVER_RESTART, the default of a dynamic worker.',
            "Set bgw_restart_time to a number of seconds, or leave restart_on out.",
        )
    if restart_time is None and backoff is not None:
        return Problem(
            "restart_backoff",
            "is for a worker that is restarted",
            "bgw_restart_time is BGW_NEVER_RESTART, the default of a dynamic worker.",
            "Set bgw_restart_time to a number of seconds, or leave restart_backoff out.",
        )
    if restart_time is not None and backoff is not None and backoff["ceiling"] < restart_time:
        return Problem(
            "restart_backoff",
            "ceiling is less than bgw_restart_time",
            f"The ceiling is {backoff['ceiling']:g} s, and the first wait is already {restart_time:g} s.",
        )
    return None


#: Keys that say what follows an end, or when one is wanted, each with its default: the schedule says that.
_NOT_BESIDE_SCHEDULE: Final = {
    "restart_on": "crash",
    "restart_backoff": None,
    "essential": False,
    "max_age": None,
    "max_memory": None,
}


def _beside_schedule(kept: dict[str, Any], restart_time: float | None) -> Problem | None:
    """Return the first key that means nothing for a worker that is started by a schedule."""
    found = [key for key, default in _NOT_BESIDE_SCHEDULE.items() if kept[key] != default]
    if restart_time is not None:
        found.insert(0, "bgw_restart_time")
    if not found:
        return None
    return Problem(
        "schedule",
        f"cannot be combined with {found[0]}",
        "A worker with a schedule runs to its end, and is started again at the next time however it ended.",
        f"Leave {found[0]} out{', or say BGW_NEVER_RESTART where a plugin sets it' if restart_time is not None else ''}.",
    )
