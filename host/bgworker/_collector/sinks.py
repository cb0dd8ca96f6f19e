"""Which line goes where: workers' lines, the host's facts, the collector's own complaints.

``log = "files"``: log/host.log and log/workers/*.log; ``"stderr"``: all of it on stderr;
``"both"``. Only ``loop`` uses this room.
"""

from __future__ import annotations

import os
import time
from typing import Final, TypedDict

from bgworker._collector.files import AppendFile, Rotation
from bgworker._collector.json_lines import JsonFormat
from bgworker._collector.lines import clean_text
from bgworker._collector.names import HOST_LOG, LOG_DIRECTORY, WORKERS_DIRECTORY
from bgworker._collector.plain import PlainFormat
from bgworker._collector.standard_error import StandardError
from bgworker._collector.streams import Life

#: How long the last lines wait for a slow reader of stderr when we go.
_LAST_LINES_TIMEOUT: Final = 1.0
#: Seconds after which a fact of the host has waited for a collector, not just been on its way.
_LATE: Final = 1.0


class Unsaid(TypedDict):
    """Lines that were lost, and that nobody was told of."""

    #: The file in the data directory; empty for standard error.
    place: str
    count: int
    reason: str


def unsaid_of(file: AppendFile) -> Unsaid:
    """Return what a file could not say."""
    return {"place": file.place, "count": file.lost, "reason": file.reason}


class Sinks:
    """The open log files, and stderr.

    Args:
        data_directory: Absolute path.
        log: "files", "stderr" or "both".
        output_format: Makes the lines.
        host_pid: Said in the host's facts.
        standard_error: The queue before stderr; outlives a change of these settings.
        rotation: Of each file by itself, so that one worker's flood takes no line of another; None for none.
    """

    def __init__(
        self,
        data_directory: str,
        log: str,
        output_format: PlainFormat | JsonFormat,
        host_pid: int,
        standard_error: StandardError,
        rotation: Rotation | None = None,
    ) -> None:
        self._data_directory = data_directory
        self._has_files = log != "stderr"
        self._has_stderr = log != "files"
        self._format = output_format
        self._host_pid = host_pid
        self._stderr = standard_error
        self._rotation = rotation
        self._host_file = AppendFile(data_directory, LOG_DIRECTORY, HOST_LOG, self.lost_notice, rotation)
        self._worker_files: dict[str, AppendFile] = {}
        #: Paths that cannot be written at the moment: complained about once, until all work again.
        self._failing: set[str] = set()

    def worker_lines(self, life: Life, block: bytes, stream: str) -> None:
        """Write whole, clean lines that a worker wrote to "stdout" or "stderr"."""
        record = self._format.worker_lines(life.tag, time.time(), block, stream)
        if self._has_files:
            self._append_to_worker_file(life, record)
        if self._has_stderr:
            self._stderr.write(record)

    def worker_fact(self, life: Life, level: str, text: str) -> None:
        """Write a fact about a worker into its own log file.

        The host sends what stderr should show as a fact of its own.
        """
        if self._has_files:
            block = b"".join(f"{level}:  {clean_text(line)}\n".encode() for line in text.splitlines() or [""])
            self._append_to_worker_file(life, self._format.worker_lines(life.tag, time.time(), block))

    def host_facts(self, facts: list[tuple[str, str]], at: float | None = None) -> None:
        """Write facts of the host: level and text of each.

        Raises:
            ValueError: The time is none that a calendar has.
        """
        now = time.time()
        # Written with the time of its arrival, like workers' lines, so that their times agree with their order: an exit is
        # not told before the last lines that came out of the pipe. What the host had to keep for us has its own time.
        if at is None or 0 <= now - at < _LATE:
            at = now
        try:
            record = self._format.facts(self._host_pid, at, facts)
        except (OverflowError, OSError) as error:
            raise ValueError(f"time is out of range: {error}") from None
        if self._has_files:
            self.note_outcome(self._host_file.append(record), self._host_file.path, self._host_file.reason)
        if self._has_stderr:
            self._stderr.write(record)

    def _append_to_worker_file(self, life: Life, record: bytes) -> None:
        file = self._worker_file(life.file_name)
        self.note_outcome(file.append(record), file.path, file.reason)

    def _worker_file(self, name: str) -> AppendFile:
        file = self._worker_files.get(name)
        if file is None:
            file = AppendFile(self._data_directory, WORKERS_DIRECTORY, name, self.lost_notice, self._rotation)
            self._worker_files[name] = file
        return file

    def lost_notice(self, count: int, reason: str) -> bytes:
        """Return the line that says how many lines were lost, and why."""
        lines = "1 line" if count == 1 else f"{count} lines"
        return self._format.facts(os.getpid(), time.time(), [("WARNING", f"{lines} lost: {reason}")])

    def note_outcome(self, is_written: bool, path: str, reason: str) -> None:
        """Complain about a file that cannot be written."""
        # Where the files cannot take it, stderr is the one place left to say so: once, not for each file and second.
        if is_written:
            if self._failing:
                self._failing.discard(path)
            return
        if not self._failing:
            self.complain(f'could not write file "{path}": {reason}', "Lines are dropped and counted until it can be written.")
        self._failing.add(path)

    def complain(self, primary: str, detail: str = "") -> None:
        """Say on stderr what cannot be said in a file."""
        facts = [("WARNING", primary), ("DETAIL", detail)] if detail else [("WARNING", primary)]
        self._stderr.write(self._format.facts(os.getpid(), time.time(), facts))

    def release(self, file_name: str) -> None:
        """Close a file that no worker writes to any more."""
        if (file := self._worker_files.get(file_name)) is not None:
            file.close()
            # With lines lost it is kept: somebody may use it again, and the end will tell.
            if not file.lost:
                del self._worker_files[file_name]

    def reopen(self) -> None:
        """Open every file by its name again at its next line; somebody renamed them."""
        for file in (self._host_file, *self._worker_files.values()):
            file.close()

    def close(self) -> None:
        """Say what was lost and close every file."""
        for file in (self._host_file, *self._worker_files.values()):
            file.settle()
            file.close()

    def unsaid(self) -> list[Unsaid]:
        """Return which lines were lost and could not be told of, at the very end; another collector may be able to."""
        files = [unsaid_of(file) for file in (self._host_file, *self._worker_files.values()) if file.lost]
        count, reason = self._stderr.unsaid()
        return [*files, {"place": "", "count": count, "reason": reason}] if count else files

    def resume(self, lost: Unsaid) -> None:
        """Tell, with the next line of the same place, what a collector before this one could not."""
        directory, _, name = lost["place"].rpartition("/")
        if not lost["place"]:
            self._stderr.resume(lost["count"], lost["reason"])
        elif directory == "/".join(WORKERS_DIRECTORY):
            self._worker_file(name).resume(lost["count"], lost["reason"])
        elif lost["place"] == self._host_file.place:
            self._host_file.resume(lost["count"], lost["reason"])

    def flush_stderr(self) -> None:
        """Give stderr's reader its last chance; at the end."""
        self._stderr.settle(_LAST_LINES_TIMEOUT)
        self._stderr.close()
