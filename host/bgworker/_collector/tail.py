r"""Why a worker ended, as far as its last lines on stderr say: one line for status, the lines themselves for history.

Pure. ``streams`` keeps the last bytes of stderr of each life; they are looked at once, at the exit.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from bgworker._collector.lines import clean_text
from bgworker._collector.records import as_text, clean_lines
from bgworker._log_record import MARK

#: How much of a worker's stderr is kept for its end: a long traceback, or the last 50 lines.
KEPT_BYTES: Final = 16_384
#: Longest reason in characters: one line of a status view, and a bit.
REASON_LENGTH: Final = 200
#: How far back an error is taken for the reason of the exit; one before that is an old story.
_RECENT_LINES: Final = 50
#: How many lines history keeps of an exit.
KEPT_LINES: Final = 50

_ERROR: Final = re.compile(r"(?:ERROR|FATAL|PANIC):\s+(\S.*)")
#: What the interpreter prints when it dies itself (Py_FatalError, faulthandler).
_INTERPRETER: Final = re.compile(r"Fatal Python error: \S.*")
#: The frame that an exception group draws around its parts, and the rule above each part (traceback.py).
_GROUP_FRAME: Final = re.compile(r" *[|+] ")
_GROUP_RULE: Final = re.compile(r" *\+[-+]+ \d+ -+")
_TRACEBACK: Final = "Traceback (most recent call last):"
#: What stands between the tracebacks of a chain (traceback.py).
_CHAIN: Final = (
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)


class LastWords(NamedTuple):
    """What is known of the end of a worker's stderr."""

    reason: str = ""
    lines: tuple[str, ...] = ()
    #: The last traceback in it, with those that it was caused by; empty if there is none.
    traceback: str = ""


def last_words(errors: bytes) -> LastWords:
    """Return what the last bytes of a worker's stderr tell; the first line may lack its beginning."""
    if MARK in errors:
        errors = as_text(clean_lines(errors if errors.endswith(b"\n") else errors + b"\n"))
    lines = [clean_text(line.rstrip("\r")) for line in errors.decode("utf-8", "backslashreplace").split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    return LastWords(reason_of(errors), tuple(lines[-KEPT_LINES:]), _traceback_of(lines))


def _traceback_of(lines: list[str]) -> str:
    """Return the last traceback and what it was chained to, cut at the exception's own lines."""
    begins = [number for number, line in enumerate(lines) if line.strip(" +|") == _TRACEBACK]
    if not begins:
        return ""
    first = last = begins[-1]
    for begin in reversed(begins[:-1]):
        if any(line in _CHAIN for line in lines[begin:first]) or lines[first][:1] in (" ", "|"):
            first = begin
    end = last + 1
    while end < len(lines) and lines[end][:1] in (" ", "|", "+"):
        end += 1
    # The exception itself, and the notes below it as far as they are indented.
    end += 1
    while end < len(lines) and lines[end][:1] == " ":
        end += 1
    return "\n".join(lines[first:end])


def reason_of(errors: bytes) -> str:
    """Return the line that tells best why the worker ended, cut and cleaned; empty if it wrote nothing.

    Args:
        errors: The last bytes that it wrote to stderr; the first line may lack its beginning.
    """
    lines = [line.rstrip() for line in errors.decode("utf-8", "backslashreplace").split("\n")]
    lines = [line for line in lines if line.strip()]
    if not lines:
        return ""
    reason, said_at = "", -1
    in_traceback = False
    for number, line in enumerate(lines):
        text = _GROUP_FRAME.sub("", line, count=1) if _GROUP_FRAME.match(line) else line
        if text.strip().endswith(_TRACEBACK) or _GROUP_RULE.fullmatch(line):
            in_traceback = True
        elif in_traceback and not text[0].isspace():
            # The first line after the frames that is not indented is the exception; what follows it are its notes.
            in_traceback = False
            reason, said_at = text, number
        elif match := _ERROR.match(line):
            reason, said_at = match.group(1), number
        elif _INTERPRETER.match(line):
            reason, said_at = line, number
    if said_at < len(lines) - _RECENT_LINES:
        reason = ""
    reason = clean_text((reason or lines[-1]).strip())
    return reason if len(reason) <= REASON_LENGTH else reason[: REASON_LENGTH - 3] + "..."
