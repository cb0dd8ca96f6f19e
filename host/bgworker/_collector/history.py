"""history.jsonl: one JSON object per line and record, kept to a bounded size.

The records are the host's. To that of an exit this room adds what only the collector knows:
the last lines on stderr, the traceback in them, and whether the OOM killer was at work. Only
``loop`` uses it.
"""

from __future__ import annotations

import datetime
import json
from typing import Any, Final

from bgworker._collector.compression import Compressor
from bgworker._collector.files import AppendFile, Rotation
from bgworker._collector.names import HISTORY
from bgworker._collector.oom import OomCounter
from bgworker._collector.tail import LastWords

#: Bytes at which history.jsonl is put aside, and how many predecessors are kept.
HISTORY_LIMIT: Final = 8 * 1024 * 1024
HISTORY_KEPT: Final = 5
_SIGKILL: Final = 9


class History:
    """The history file of one data directory."""

    def __init__(self, data_directory: str, compressor: Compressor, oom: OomCounter) -> None:
        rotation = Rotation(HISTORY_LIMIT, HISTORY_KEPT, compressor)
        self._file = AppendFile(data_directory, (), HISTORY, _lost_notice, rotation)
        self._oom = oom

    def add_exit(self, record: dict[str, Any], words: LastWords) -> bool:
        """Append the record of an exit, with what the worker wrote last; whether it was written."""
        # A SIGKILL of the host's own, after a stop timeout, needs no other explanation.
        is_suspect = record.get("signal") == _SIGKILL and not record.get("was_requested")
        # One that was logged in the middle of a good life explains no end that was asked for, nor one that went well.
        explains = not record.get("was_requested") and record.get("code") != 0
        more = {
            "oom_kill": self._oom.has_killed() if is_suspect else False,
            "stderr": words.lines,
            "traceback": words.traceback if explains else "",
        }
        return self.add({**record, **more})

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

    @property
    def file(self) -> AppendFile:
        """The file, for what is known of lost records."""
        return self._file

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
