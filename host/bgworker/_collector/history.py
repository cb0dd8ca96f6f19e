"""history.jsonl: one JSON object per line and record, kept to a bounded size.

The records are the host's; this room only writes them. Only ``loop`` uses it.
"""

from __future__ import annotations

import datetime
import json
from typing import Any, Final

from bgworker._collector.files import AppendFile
from bgworker._collector.names import HISTORY

#: Size at which history.jsonl becomes history.jsonl.1; with the one predecessor, at most twice this is kept.
HISTORY_LIMIT: Final = 16 * 1024 * 1024


class History:
    """The history file of one data directory."""

    def __init__(self, data_directory: str) -> None:
        self._file = AppendFile(data_directory, (), HISTORY, _lost_notice, limit=HISTORY_LIMIT)

    def add(self, record: Any) -> bool:
        """Append one record; whether it was written. One that was not is counted and told later.

        Raises:
            ValueError: The record is not a JSON object.
        """
        if not isinstance(record, dict):
            raise ValueError("a history record is not an object")
        return self._file.append(_line(record))

    @property
    def path(self) -> str:
        """Where the file is; for messages."""
        return self._file.path

    @property
    def reason(self) -> str:
        """Why writing failed last."""
        return self._file.reason

    def reopen(self) -> None:
        """Open the file by its name at the next record."""
        self._file.close()

    def settle(self) -> None:
        """Say once more what was lost, then close."""
        self._file.settle()
        self._file.close()


def _line(record: dict[str, Any]) -> bytes:
    # ensure_ascii: whoever prints the file on a terminal sees no control character of anybody's.
    return json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _lost_notice(count: int, reason: str) -> bytes:
    at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return _line({"event": "records_lost", "at": at, "count": count, "reason": reason})
