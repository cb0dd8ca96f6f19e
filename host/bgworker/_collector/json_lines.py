"""The JSON format: each line of a log file is one object, for programs that collect logs.

    {"at":"2026-11-21T09:00:01.123Z","slot":3,"generation":2,"pid":4711,"name":"order-drain",
     "stream":"stderr","level":"WARNING","logger":"shop.queue","message":"queue is long"}
    {"at":"2026-11-21T09:00:01.125Z","pid":4700,"level":"LOG","message":"...","detail":"...","hint":"..."}

(On one line each.) The first is a worker's: ``level`` and ``logger`` only where the line says
them, ``exc`` with a traceback that came with a record of ``logging``. The second is a fact of the
host. ``at`` comes first and is of one length, so that lines sort by it. Pure, as ``plain`` is.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any, Final

from bgworker._collector.plain import Identity
from bgworker._log_record import MARK, decode

#: Lines of our own runtime (``LEVEL:  text``).
_OURS: Final = re.compile(r"([A-Z]{3,16}):  (.*)", re.DOTALL)
#: What ``logging.basicConfig()`` makes of a record unless it is told otherwise.
_BASIC: Final = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL):([^\s:]{1,200}):(.*)", re.DOTALL)


class JsonFormat:
    """Makes lines for programs; the same methods as ``PlainFormat``."""

    def worker_tag(self, worker: Identity) -> bytes:
        """Return the part of a worker's lines that never changes; made once per life."""
        who: dict[str, Any] = {}
        if worker.slot >= 0:
            who = {"slot": worker.slot, "generation": worker.generation}
        who |= {"pid": worker.pid or None, "name": worker.name}
        return _dump(who)[1:-1].encode()

    def worker_lines(self, tag: bytes, at: float, block: bytes, stream: str = "") -> bytes:
        """Return whole, clean lines of one worker as objects."""
        head = b'{"at":"' + _instant(at) + b'",' + tag + (b',"stream":"' + stream.encode() + b'",' if stream else b",")
        lines = block[:-1].split(b"\n")
        return b"".join(head + _dump(_fields(line))[1:].encode() + b"\n" for line in lines)

    def facts(self, pid: int, at: float, facts: list[tuple[str, str]]) -> bytes:
        """Return facts as one object: level and message of the first, the others under their levels."""
        (level, message), *others = facts
        record = {"at": _instant(at).decode(), "pid": pid, "level": level, "message": message}
        record |= {other_level.lower(): text for other_level, text in others}
        return f"{_dump(record)}\n".encode()


def _fields(line: bytes) -> dict[str, Any]:
    if line.startswith(MARK) and (record := decode(line)) is not None:
        fields = {"level": record.level, "logger": record.logger, "message": record.message}
        return {**fields, "exc": record.exc} if record.exc else fields
    text = line.decode("utf-8", "backslashreplace")
    if (ours := _OURS.fullmatch(text)) is not None:
        return {"level": ours.group(1), "message": ours.group(2)}
    if (basic := _BASIC.fullmatch(text)) is not None:
        return {"level": basic.group(1), "logger": basic.group(2), "message": basic.group(3)}
    return {"message": text}


def _dump(record: dict[str, Any]) -> str:
    # ASCII alone: what a terminal would obey in somebody's name or message is escaped, as it is in history.jsonl.
    return json.dumps(record, separators=(",", ":"))


def _instant(at: float) -> bytes:
    seconds, milliseconds = divmod(int(at * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03d}Z".encode()
