"""Reading history.jsonl, and what was put aside of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from bgworker._collector.names import HISTORY
from bgworker._logs.opening import old_lines, open_file, predecessors_of


def read_history(data_directory: str) -> Iterator[dict[str, Any]]:
    """Yield the records of the history, oldest first; skips what is no record."""
    path = os.path.join(data_directory, HISTORY)
    for old in predecessors_of(path):
        yield from _records(old_lines(path, old))
    if (file := open_file(path)) is not None:
        with file:
            yield from _records(file)


def read_latest(data_directory: str) -> Iterator[list[dict[str, Any]]]:
    """Yield the history in pieces, the latest first; within a piece the records are oldest first.

    For who looks for something that is nearly always near the end.
    """
    path = os.path.join(data_directory, HISTORY)
    older = predecessors_of(path)
    if (file := open_file(path)) is not None:
        with file:
            yield list(_records(file))
    for old in reversed(older):
        yield list(_records(old_lines(path, old)))


def _records(lines: Iterator[bytes] | Any) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # torn by a full disk, being written at this moment, or not ours
            continue
        if isinstance(record, dict):
            yield record
