"""The keys of a registration that say in what surroundings its process runs: what they may hold, and who may set them.

Pure. ``_spec`` asks about a registration, ``_host.rights`` about who registers; what puts the
keys into effect is ``_process.surroundings``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from bgworker._text import is_inert

#: Longest name of a user or group in bytes (LOGIN_NAME_MAX of limits.h, the terminating zero included, is 256).
MAX_USER_NAME: Final = 255
#: Every key of this room, in the order in which a birth passes them on.
KEYS: Final = ("user", "group")
#: Keys that are imposed on a worker: what it registers has them too.
IMPOSED: Final = ("user", "group")
#: Those whose effect only a fresh interpreter shows.
NEED_OWN_INTERPRETER: Final = ("user", "group")


class Problem(NamedTuple):
    """What is wrong with a key: the end of a primary, which begins with the key, then detail and hint."""

    reason: str
    detail: str = ""
    hint: str = ""


def expected(key: str, value: Any) -> str | None:
    """Return what a JSON value of the key must be, if it is of a wrong type; None is any key's default."""
    if value is None:
        return None
    match key:
        case "user" | "group":
            return None if isinstance(value, str) else f"the name of a {key}"
    return None


def find_problem(values: Mapping[str, Any]) -> Problem | None:
    """Return the first thing that is wrong with values of the right types."""
    for key in ("user", "group"):
        if values.get(key) is not None and (problem := _name_problem(values[key])):
            return Problem(f"{key} {problem}")
    return None


def _name_problem(text: str) -> str | None:
    if not text.strip():
        return "is empty"
    if not all(map(is_inert, text)):
        return "has control characters"
    if (size := len(text.encode())) > MAX_USER_NAME:
        return f"is too long: {size} bytes of UTF-8, at most {MAX_USER_NAME} are allowed"
    return None
