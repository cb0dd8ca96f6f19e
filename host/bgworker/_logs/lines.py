"""What a line of a log says, in either format, and the same line in the other.

Pure. A file may hold both formats: ``[host] log_format`` was changed in between.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple

from bgworker._collector.lines import clean_text
from bgworker._collector.plain import parse_head

#: How a line of the JSON format begins; ``at`` is of fixed length.
_JSON_BEGIN: Final = '{"at":"'
_JSON_STAMP: Final = re.compile(r'\{"at":"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d\.\d{3})Z"')
_LEVEL_LINE: Final = re.compile(r"([A-Z]{1,16}):  (.*)", re.DOTALL)


class Line(NamedTuple):
    """What the beginning of a line says, or a whole object."""

    #: ``2026-11-21 09:00:01.123``, in UTC.
    stamp: str
    #: None in a fact of the host.
    slot: int | None
    generation: int | None
    #: Name and text of a worker, or level and message of a fact.
    rest: str
    #: Of the JSON format: the object.
    record: dict[str, Any] | None = None

    def is_of(self, name: str) -> bool:
        """Whether the line is a worker's of this name."""
        if self.record is not None:
            return self.record.get("name") == name
        return self.rest.startswith(f"{clean_text(name)}: ")


def parse(text: str) -> Line | None:
    """Return what a line says; None for the torn remains of one."""
    if text.startswith(_JSON_BEGIN):
        return _parse_json(text)
    head = parse_head(text)
    return None if head is None else Line(head.stamp, head.slot, head.generation, text[head.end :])


def stamp_of(text: str) -> str | None:
    """Return the time of a line, as quickly as that can be told."""
    if text.startswith(_JSON_BEGIN):
        match = _JSON_STAMP.match(text)
        return None if match is None else " ".join(match.groups())
    head = parse_head(text)
    return None if head is None else head.stamp


def _parse_json(text: str) -> Line | None:
    stamp = stamp_of(text)
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if stamp is None or not isinstance(record, dict):
        return None
    slot, generation = record.get("slot"), record.get("generation")
    return Line(stamp, slot if isinstance(slot, int) else None, generation if isinstance(generation, int) else None, "", record)


def as_plain(text: str) -> str:
    """Return a line as people read it; one of the JSON format may become several."""
    if not text.startswith(_JSON_BEGIN) or (line := _parse_json(text)) is None or line.record is None:
        return text
    record = line.record
    life = f"{line.slot}.{line.generation} " if line.slot is not None else ""
    head = f"{line.stamp} UTC [{life}{_shown(record.get('pid')) or '-'}] "
    level, message = _shown(record.get("level")), str(record.get("message") or "")
    if "name" in record:
        head += f"{_shown(record['name'])}: "
        logger = f"{_shown(record['logger'])}: " if record.get("logger") else ""
        body = f"{level}:  {logger}{message}" if level else message
        if record.get("exc"):
            body += f"\n{record['exc']}"
        return "\n".join(head + clean_text(each) for each in body.split("\n"))
    parts = [(level or "LOG", message)]
    parts += [(key.upper(), str(record[key])) for key in ("detail", "hint") if record.get(key)]
    return "\n".join(f"{head}{label}:  {clean_text(each)}" for label, part in parts for each in part.split("\n"))


def as_json(text: str) -> str:
    """Return a line as one JSON object, with what can be told of it."""
    line = parse(text)
    if line is None:
        return _dump({"message": text})
    if line.record is not None:
        return _dump(line.record)
    record: dict[str, Any] = {"at": f"{line.stamp.replace(' ', 'T')}Z"}
    pid = text[: len(text) - len(line.rest)].rpartition("]")[0].replace("[", " ").rpartition(" ")[2]
    if line.slot is not None:
        record |= {"slot": line.slot, "generation": line.generation}
    record["pid"] = int(pid) if pid.isdigit() else None
    rest = line.rest
    if line.slot is not None or record["pid"] is None:
        record["name"], _, rest = rest.partition(": ")
    if (match := _LEVEL_LINE.fullmatch(rest)) is not None:
        record |= {"level": match.group(1), "message": match.group(2)}
    else:
        record["message"] = rest
    return _dump(record)


def _shown(value: Any) -> str:
    return "" if value is None else clean_text(str(value))


def _dump(record: dict[str, Any]) -> str:
    return json.dumps(record, separators=(",", ":"))
