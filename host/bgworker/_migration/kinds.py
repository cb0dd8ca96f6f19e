"""What supervisord accepts as the value of a key, and what is written where a file has something else.

supervisord refuses a file with such a value as a whole. A conversion does not: it reads the file as if the key were
not there, so that supervisord's default holds, and says so. Pure; only ``supervisord`` imports it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from bgworker._spec import printable

__all__ = ["KEYS", "boolean", "exit_codes", "find_problem", "restart", "signal_name", "umask"]

_TRUE: Final = ("true", "yes", "on", "1")
_FALSE: Final = ("false", "no", "off", "0")
_UNITS: Final = {"kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}


def boolean(text: str) -> bool:
    """Return a truth value.

    Raises:
        ValueError: It is none, as supervisord reads it.
    """
    if text.lower() not in _TRUE + _FALSE:
        raise ValueError(text)
    return text.lower() in _TRUE


def restart(text: str) -> bool | None:
    """Return whether a program is always restarted; None if it is when it ends unexpectedly.

    Raises:
        ValueError: It is no value of ``autorestart``.
    """
    return None if text.lower() == "unexpected" else boolean(text)


def exit_codes(text: str) -> list[int]:
    """Return the exit codes of a list.

    Raises:
        ValueError: One of them is none.
    """
    codes = [int(code) for code in text.split(",")] if text else []
    if any(not 0 <= code <= 255 for code in codes):
        raise ValueError(text)
    return codes


def umask(text: str) -> str:
    """Return a umask as three octal digits; as in the kernel, higher ones count for nothing.

    Raises:
        ValueError: It is no octal number.
    """
    return f"{int(text, 8) & 0o777:03o}"


def signal_name(text: str) -> str:
    """Return the name of a signal, without SIG.

    Raises:
        ValueError: There is no such signal.
    """
    try:
        found = signal.Signals(int(text))
    except ValueError:
        name = "SIG" + text.upper().removeprefix("SIG")
        if name not in signal.Signals.__members__:
            raise ValueError(text) from None
        found = signal.Signals[name]
    return found.name.removeprefix("SIG")


def _byte_size(text: str) -> int:
    factor = _UNITS.get(text[-2:].lower(), 1)
    return int(text[:-2] if factor > 1 else text) * factor


class _Kind(NamedTuple):
    """A kind of value: what it is, in words, and how it is read."""

    accepted: str
    #: Raises ValueError for any other.
    read: Callable[[str], Any]


_INTEGER: Final = _Kind("a whole number", int)
_BOOLEAN: Final = _Kind("true or false (or yes, no, on, off, 1, 0)", boolean)
_BYTES: Final = _Kind("a number of bytes, such as 50MB", _byte_size)
_NOTHING: Final = "it is left out"

#: Each key whose values are of a kind, and what a wrong value becomes.
KEYS: Final[dict[str, tuple[_Kind, str]]] = {
    "numprocs": (_INTEGER, "its default is taken, 1: one worker"),
    "numprocs_start": (_INTEGER, "its default is taken, 0"),
    "priority": (_INTEGER, "its default is taken, 999: the worker is written after those with less"),
    "autostart": (_BOOLEAN, "its default is taken, true: the worker is started with the host"),
    "autorestart": (_Kind("true, false or unexpected", restart), 'its default is taken, unexpected: restart_on = "crash"'),
    "exitcodes": (
        _Kind("a list of numbers from 0 to 255, parted by commas", exit_codes),
        "its default is taken, 0: success_exit_codes is left out",
    ),
    "startsecs": (_INTEGER, "its default is taken, 1: healthy_after, where startretries is set"),
    "startretries": (_INTEGER, "it is left out, and restart_backoff with it"),
    "stopsignal": (
        _Kind("the name or number of a signal, such as TERM", signal_name),
        "its default is taken, TERM: stop_signal is left out",
    ),
    "stopwaitsecs": (_INTEGER, "its default is taken, 10: stop_timeout = 10"),
    "umask": (_Kind("an octal number, such as 022", umask), "it is left out: workers inherit theirs"),
    "stopasgroup": (_BOOLEAN, _NOTHING),
    "killasgroup": (_BOOLEAN, _NOTHING),
    "redirect_stderr": (_BOOLEAN, _NOTHING),
    **{
        f"{stream}_{key}": (kind, _NOTHING)
        for stream in ("stdout", "stderr")
        for key, kind in {
            "logfile_maxbytes": _BYTES,
            "logfile_backups": _INTEGER,
            "capture_maxbytes": _BYTES,
            "events_enabled": _BOOLEAN,
            "syslog": _BOOLEAN,
        }.items()
    },
}


def find_problem(key: str, value: str, written: str) -> str | None:
    """Return what is wrong with the value of a key, what supervisord accepts, and what is taken instead; None if nothing.

    Args:
        key: The key.
        value: The value as supervisord reads it, with ``%(...)s`` written out.
        written: The value as the file has it.
    """
    if key not in KEYS:
        return None
    kind, instead = KEYS[key]
    try:
        kind.read(value)
    except ValueError:
        return f'"{printable(written)[:60]}" is not {kind.accepted}, as supervisord asks for; {instead}'
    return None
