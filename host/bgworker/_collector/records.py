"""Records of ``logging`` among a worker's lines: kept as records while their text is made harmless.

Pure. What passes through here is whole lines from a pipe; what comes out is clean lines, in
which the mark of a record stands only before a record that can be read. ``plain`` and
``json_lines`` then write it as they do.
"""

from __future__ import annotations

from bgworker._collector.lines import clean, clean_text
from bgworker._log_record import MARK, LogRecord, decode, encode, text_of


def clean_lines(block: bytes) -> bytes:
    """Return the lines clean, records as records; everything that only looks like one as text."""
    if MARK not in block:
        return clean(block)
    cleaned = bytearray()
    for line in block[:-1].split(b"\n"):
        record = decode(line)
        cleaned += clean(line + b"\n") if record is None else encode(_harmless(record))
    return bytes(cleaned)


def _harmless(record: LogRecord) -> LogRecord:
    return LogRecord(clean_text(record.level), clean_text(record.logger), _clean_text(record.message), _clean_text(record.exc))


def _clean_text(text: str) -> str:
    """Return a text of several lines clean."""
    return clean(text.encode("utf-8", "backslashreplace")).decode()


def as_text(block: bytes) -> bytes:
    """Return clean lines with each record as the lines that people read."""
    if MARK not in block:
        return block
    lines: list[bytes] = []
    for line in block.removesuffix(b"\n").split(b"\n"):
        record = decode(line)
        lines.append(line if record is None else text_of(record).encode())
    return b"\n".join(lines) + b"\n"
