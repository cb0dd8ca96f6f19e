"""One record of ``logging`` on its way from a worker to the collector: a line of its own on standard error.

The line begins with a byte that text does not have (RS, as in RFC 7464) and holds level, name
of the logger, message and traceback, so that the log keeps them apart whatever its format. It
is never longer than a line may be. Pure; shared by ``_worker``, which writes it, and
``_collector``, which reads it: anybody's bytes, so what is no record is taken for text.
"""

from __future__ import annotations

import json
from typing import Final, NamedTuple

MARK: Final = b"\x1e"
#: Bytes of a whole line, newline included; below the collector's limit, so that none is ever cut.
MAX_BYTES: Final = 16_000
#: Longest name of a logger or a level, in characters.
_MAX_NAME: Final = 200
_CUT: Final = " [cut]"
_BEGINNING_CUT: Final = "[cut] "


class LogRecord(NamedTuple):
    """What ``logging`` knew of a message."""

    level: str
    logger: str
    #: May have several lines.
    message: str
    #: The traceback, or empty.
    exc: str = ""


def encode(record: LogRecord) -> bytes:
    """Return the record as a line; a message that is too long loses its end, a traceback its beginning."""
    level, logger, message, exc = record.level[:_MAX_NAME], record.logger[:_MAX_NAME], record.message, record.exc
    longest = MAX_BYTES
    while len(line := MARK + json.dumps([level, logger, message, exc], separators=(",", ":")).encode() + b"\n") > MAX_BYTES:
        # How many bytes a character takes depends on it: halve what may stay until all of it fits.
        longest //= 2
        message = message if len(message) <= longest else message[:longest] + _CUT
        exc = exc if len(exc) <= longest else _BEGINNING_CUT + exc[-longest:]
    return line


def decode(line: bytes) -> LogRecord | None:
    """Return the record in a line without its newline; None when it is none."""
    if not line.startswith(MARK):
        return None
    try:
        fields = json.loads(line[len(MARK) :])
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, list) or len(fields) != 4 or not all(isinstance(field, str) for field in fields):
        return None
    return LogRecord(fields[0][:_MAX_NAME], fields[1][:_MAX_NAME], fields[2], fields[3])


def text_of(record: LogRecord) -> str:
    """Return the record for people: ``LEVEL:  logger: message``, then the traceback."""
    head = f"{record.level}:  {record.logger}: {record.message}"
    return f"{head}\n{record.exc}" if record.exc else head
