"""The plain format: what a line in a log file looks like, and how to read one again.

    2026-11-21 09:00:01.123 UTC [3.2 4711] order-drain: WARNING:  queue is long
    2026-11-21 09:00:01.125 UTC [4700] LOG:  background worker "order-drain" (PID 4711) exited with exit code 1

The first is a worker's line: slot.generation, pid, name, then the text as the worker wrote
it (its own lines of the runtime begin with a level). The second is a fact of the host, or of
the collector about its own work: pid and level. One record is one line; a detail of several
lines becomes several DETAIL records. The time is that of the arrival here, in UTC.

Pure. ``sinks`` writes through a format object, so that another format is another class (``json_lines``);
``bgworker._logs`` imports the reading half.
"""

from __future__ import annotations

import re
import time
from typing import Final, NamedTuple

from bgworker._collector.lines import clean_text
from bgworker._collector.records import as_text

#: Length of ``2026-11-21 09:00:01.123``: equal times compare equal, later ones greater.
STAMP_LENGTH: Final = 23
_LEVEL: Final = re.compile(r"[A-Z]{1,16}")
_HEAD: Final = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) UTC \[(?:(\d+)\.(\d+) )?(\d+|-)\] ")


class Identity(NamedTuple):
    """Whose lines they are; said in every line of a worker."""

    #: -1 for one that has no slot: the loader.
    slot: int
    generation: int
    #: 0 when the host does not know it.
    pid: int
    name: str


class PlainFormat:
    """Makes lines for people."""

    def worker_tag(self, worker: Identity) -> bytes:
        """Return the part of a worker's lines that never changes; made once per life."""
        life = f"{worker.slot}.{worker.generation} " if worker.slot >= 0 else ""
        return f" UTC [{life}{worker.pid or '-'}] {clean_text(worker.name)}: ".encode()

    def worker_lines(self, tag: bytes, at: float, block: bytes, stream: str = "") -> bytes:
        """Return whole, clean lines of one worker as records; which stream they came from is not said."""
        prefix = _stamp(at) + tag
        return prefix + as_text(block)[:-1].replace(b"\n", b"\n" + prefix) + b"\n"

    def facts(self, pid: int, at: float, facts: list[tuple[str, str]]) -> bytes:
        """Return facts, each a level and a text, as records; a text of several lines becomes several records."""
        head = _stamp(at).decode() + f" UTC [{pid}] "
        lines = [
            f"{head}{level if _LEVEL.fullmatch(level) else 'LOG'}:  {clean_text(line)}\n"
            for level, text in facts
            for line in text.splitlines() or [""]
        ]
        return "".join(lines).encode()


def _stamp(at: float) -> bytes:
    """Return wall clock seconds as text of STAMP_LENGTH bytes."""
    seconds, milliseconds = divmod(int(at * 1000), 1000)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(seconds))}.{milliseconds:03d}".encode()


class Head(NamedTuple):
    """What the beginning of a line says."""

    stamp: str
    #: None in a fact of the host.
    slot: int | None
    generation: int | None
    #: Where the name and text, or the level and message, begin.
    end: int


def parse_head(line: str) -> Head | None:
    """Return what a line's beginning says; None for the torn remains of a line."""
    if (match := _HEAD.match(line)) is None:
        return None
    stamp, slot, generation = match.group(1, 2, 3)
    return Head(stamp, int(slot) if slot else None, int(generation) if generation else None, match.end())
