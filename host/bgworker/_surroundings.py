"""The keys of a registration that say in what surroundings its process runs: what they may hold, and who may set them.

Pure. ``_spec`` asks about a registration, ``_host.rights`` about who registers; what puts the
keys into effect is ``_process.surroundings``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from bgworker._text import is_all_inert, is_inert, printable

#: Longest name of a user or group in bytes (LOGIN_NAME_MAX of limits.h, the terminating zero included, is 256).
MAX_USER_NAME: Final = 255
#: Longest path in bytes; PATH_MAX is more, but a registration must fit one protocol line (64 KiB) with room to spare.
MAX_PATH: Final = 1024
#: Longest environment as JSON, in bytes; for the same reason. A file can hold more.
MAX_ENVIRONMENT_BYTES: Final = 8192
#: Limits that can be set, as getrlimit(2) has them; not that of file locks, by which a worker's strays are known.
LIMITS: Final = ("as", "core", "cpu", "data", "fsize", "memlock", "nofile", "nproc", "stack")
UNLIMITED: Final = "unlimited"
#: Every key of this room, in the order in which a birth passes them on.
KEYS: Final = ("rlimits", "nice", "user", "group", "umask", "working_directory", "env_file", "environment")
#: Keys that are imposed on a worker: what it registers has them too. The others its user could change all the same.
IMPOSED: Final = ("user", "group", "rlimits", "nice")
#: Those whose effect only a fresh interpreter shows: what was imported in the loader was imported without them.
NEED_OWN_INTERPRETER: Final = ("user", "group", "environment", "env_file")

_EXPECTED: Final = {
    "user": (str, "a string, the name or number of a user"),
    "group": (str, "a string, the name or number of a group"),
    "umask": (str, 'a string of octal digits, such as "022"'),
    "working_directory": (str, "a path"),
    "env_file": (str, "a path"),
    "nice": (int, "an integer from -20 to 19"),
    "environment": (dict, "a table of strings"),
    "rlimits": (dict, "a table of limits"),
}
_UMASK: Final = re.compile(r"0?[0-7]{3}")
_HIGHEST_LIMIT: Final = (1 << 62) - 1


class Problem(NamedTuple):
    """What is wrong with a key: the end of a primary, which begins with the key, then detail and hint."""

    reason: str
    detail: str = ""
    hint: str = ""


def expected(key: str, value: Any) -> str | None:
    """Return what a JSON value of the key must be, if it is of a wrong type; None is any key's default."""
    kind, words = _EXPECTED[key]
    if value is None or (isinstance(value, kind) and not isinstance(value, bool)):
        return None
    return words


def shown(key: str, value: Any) -> Any:
    """Return a key's value as everybody may see it: of environment variables their names, for the values may be secrets."""
    return sorted(value) if key == "environment" and value is not None else value


def find_problem(values: Mapping[str, Any]) -> Problem | None:
    """Return the first thing that is wrong with values of the right types."""
    for key in KEYS:
        value = values.get(key)
        if value is not None and (problem := _problem_of(key, value)) is not None:
            return problem
    return None


def _problem_of(key: str, value: Any) -> Problem | None:
    match key:
        case "user" | "group":
            problem = _text_problem(value, MAX_USER_NAME)
            return Problem(f"{key} {problem}") if problem else None
        case "working_directory" | "env_file":
            return _path_problem(key, value)
        case "umask":
            if not _UMASK.fullmatch(value):
                return Problem(f'umask must be {_EXPECTED[key][1]}, found "{printable(value)[:40]}"')
        case "nice":
            if not -20 <= value <= 19:
                return Problem("nice is out of range", f"It is {value}; allowed are -20, the most favoured, to 19.")
        case "environment":
            return _environment_problem(value)
        case "rlimits":
            return next(filter(None, (_limit_problem(name, limit) for name, limit in value.items())), None)
    return None


def _text_problem(text: str, limit: int) -> str | None:
    if not text.strip():
        return "is empty"
    if not is_all_inert(text):
        return "has control characters"
    if (size := len(text.encode())) > limit:
        return f"is too long: {size} bytes of UTF-8, at most {limit} are allowed"
    return None


def _path_problem(key: str, path: str) -> Problem | None:
    if problem := _text_problem(path, MAX_PATH):
        return Problem(f"{key} {problem}")
    if not path.startswith("/"):
        return Problem(
            f"{key} is not an absolute path",
            f'It is "{printable(path)[:200]}". Only in workers.toml is a relative path relative to something, the file itself.',
        )
    return None


def _environment_problem(environment: Mapping[Any, Any]) -> Problem | None:
    # No value may be in a message: it may be a password.
    for name, value in environment.items():
        if (problem := name_problem(name)) is not None:
            return Problem(f"environment {problem}")
        if not isinstance(value, str):
            return Problem(f'environment variable "{name}" is not a string', hint="Write its value in quotes.")
        if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
            return Problem(f'environment variable "{name}" has a value that no environment can hold')
    size = len(json.dumps(dict(environment), ensure_ascii=False).encode())
    if size > MAX_ENVIRONMENT_BYTES:
        return Problem(
            "environment is too long",
            f"It is {size} bytes as JSON; at most {MAX_ENVIRONMENT_BYTES} are allowed.",
            "Put the variables into a file, and name that in env_file.",
        )
    return None


def name_problem(name: str) -> str | None:
    """Return what keeps a text from being the name of an environment variable, as the end of a sentence."""
    if not name or "=" in name or any(c.isspace() or not is_inert(c) for c in name):
        return f'has a variable with an impossible name, "{printable(name)[:40]}"'
    return None


def _limit_problem(name: str, limit: Any) -> Problem | None:
    if name not in LIMITS:
        return Problem(f'rlimits has no limit "{printable(str(name))[:40]}"', f"The limits are {', '.join(LIMITS)}.")
    soft, hard = both_limits(limit)
    if not all(_is_limit(each) for each in (soft, hard)):
        return Problem(
            f'rlimits {name} must be an integer, "{UNLIMITED}", or a table of both soft and hard',
            f"An integer is from 0 to {_HIGHEST_LIMIT}.",
        )
    if hard != UNLIMITED and (soft == UNLIMITED or soft > hard):
        return Problem(f"rlimits {name} has a soft limit above its hard limit", f"They are {soft} and {hard}.")
    return None


def both_limits(limit: Any) -> tuple[Any, Any]:
    """Return the soft and the hard limit of a value that names one for both, or each."""
    if isinstance(limit, Mapping):
        return (limit["soft"], limit["hard"]) if limit.keys() == {"soft", "hard"} else (None, None)
    return limit, limit


def _is_limit(value: Any) -> bool:
    if isinstance(value, str):
        return value == UNLIMITED
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _HIGHEST_LIMIT
