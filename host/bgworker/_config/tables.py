"""From one parsed table to its Struct, with every error of the table.

msgspec says at the first error that a table is wrong; then each key is tried alone to find
them all. What is right about a wrong table is kept, for the checks that come after. Used
by ``load.py``.
"""

from __future__ import annotations

import datetime
import functools
import math
import re
import typing
from typing import Any, Final

import msgspec

from bgworker._config.findings import Findings, shown, shown_key
from bgworker._config.lines import Path
from bgworker._config.model import ConfigurationTables, DatabaseSettings, HostSettings, WorkerTable

#: Values nest this deep at most: they travel in messages of at most 64 levels (protocol.MAX_DEPTH), envelope included.
MAX_VALUE_DEPTH: Final = 50
#: What TOML promises of an integer, and what readers in other languages can hold.
_INT64: Final = range(-(1 << 63), 1 << 63)
_ITEM: Final = re.compile(r"at `\$\[(\d+)\]")


def convert_table(
    raw: Any, kind: type[msgspec.Struct], table: str, path: Path, findings: Findings, *, is_secret: bool = False
) -> dict[str, Any]:
    """Return the table's values that are of the right kind, converted; all else becomes errors.

    Args:
        raw: What the parser gave; perhaps no table.
        kind: The Struct that describes the table.
        table: How errors name it.
        path: Where it stands.
        findings: Where errors go.
        is_secret: Whether strings of this table may hold passwords.
    """
    if not isinstance(raw, dict):
        findings.add(table, path, f"expected a table, found {shown(raw, is_secret=is_secret)}")
        return {}
    try:
        whole = msgspec.convert(raw, kind)
    except msgspec.ValidationError:
        pass  # which says the first error only
    else:
        return {key: getattr(whole, key) for key in raw}
    known = expectations(kind)
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in known:
            findings.add_key_without_meaning(table, (*path, key), tuple(known), table_of(key))
            continue
        try:
            values[key] = msgspec.convert(value, _types(kind)[key])
        except msgspec.ValidationError as error:
            found = _found(value, error, is_secret=is_secret or key == "environment")
            problem = f"expected {known[key]}, found {found}"
            findings.add(f"{table} {key}", (*path, key), problem, hint=_hint(key, value))
    for key in _required(kind):
        if key not in raw:
            findings.add(table, path, f"key {key} is missing", f"Expected is {known[key]}.")
    return values


def plain(value: Any, table: str, path: Path, findings: Findings, at: Path = ()) -> Any:
    """Return a value that a worker or plugin gets as it is, as JSON can say it; dates and times become RFC 3339 strings.

    Args:
        value: What the parser gave.
        table: How errors name the table, and the key if there is one.
        path: Where the key stands, for the line number.
        findings: Where errors go.
        at: Where in the key's value this is.
    """
    if isinstance(value, str | bool):
        return value
    if (isinstance(value, float) and not math.isfinite(value)) or (isinstance(value, int) and value not in _INT64):
        place = findings.innermost(path + at, len(path))
        findings.add(table + _subscripts(at), place, f"expected a finite number of at most 64 bits, found {shown(value)}")
        return None
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, dict | list):
        if len(at) >= MAX_VALUE_DEPTH:
            findings.add(table, path, f"the value is nested more than {MAX_VALUE_DEPTH} levels deep")
            return None
        if isinstance(value, dict):
            return {key: plain(item, table, path, findings, (*at, key)) for key, item in value.items()}
        return [plain(item, table, path, findings, (*at, number)) for number, item in enumerate(value)]
    return value


def _subscripts(at: Path) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{shown_key(part)}" for part in at)


@functools.cache
def expectations(kind: type[msgspec.Struct]) -> dict[str, str]:
    """Return each key of a table with the words for what it expects."""
    expected: dict[str, str] = {}
    for name, hint in _types(kind).items():
        notes = [note for note in getattr(hint, "__metadata__", ()) if isinstance(note, msgspec.Meta) and note.extra]
        expected[name] = notes[-1].extra["expected"] if notes and notes[-1].extra else "a table"
    return expected


@functools.cache
def _types(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {name: hint for name, hint in typing.get_type_hints(kind, include_extras=True).items() if name in kind.__struct_fields__}


@functools.cache
def _required(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    return tuple(field.name for field in msgspec.structs.fields(kind) if field.required)


def table_of(key: str) -> str | None:
    """Return the table that has a key, for one that stands in the wrong table."""
    tables = {
        "[host]": HostSettings,
        "[database]": DatabaseSettings,
        "[[worker]]": WorkerTable,
        "the file itself": ConfigurationTables,
    }
    return next((name for name, kind in tables.items() if key in kind.__struct_fields__), None)


def _found(value: Any, error: msgspec.ValidationError, *, is_secret: bool) -> str:
    # msgspec names the item that is wrong, counted from 0; people count from 1.
    if isinstance(value, list) and (match := _ITEM.search(str(error))) is not None and int(match[1]) < len(value):
        return f"{shown(value[int(match[1])], is_secret=is_secret)} as item {int(match[1]) + 1}"
    return shown(value, is_secret=is_secret)


def _hint(key: str, value: Any) -> str:
    if key == "bgw_restart_time" and value == -1 and not isinstance(value, bool):
        return 'Write "BGW_NEVER_RESTART" for a worker that is never to be restarted.'
    if key == "umask" and isinstance(value, int):
        return 'Write the octal digits in quotes, such as "022".'
    return ""
