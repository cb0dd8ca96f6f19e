"""Appending to a file that may vanish, fill up, be taken away or be a trap, without ever failing.

An ``AppendFile`` takes blocks of whole lines. What it cannot write it drops and counts, and
when writing works again the count comes first, as a line of its own. It is the only writer
of its file. Every directory below the data directory is opened relative to the one before
it and never through a symbolic link, and made again when it is gone.

A file with a rotation makes room when it has grown to its size: it gets a name with the time
in it, and a new one begins. ``compression`` compresses what has been put aside, ``_prune`` removes the oldest.

Only ``sinks`` and ``history`` use this room.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from bgworker._collector.compression import Compressor
from bgworker._collector.directories import check_owner, open_directory
from bgworker._collector.names import next_predecessor, predecessors

#: Seconds between two tries to write to a file that could not be written.
RETRY_INTERVAL: Final = 1.0

# O_NONBLOCK: a FIFO put in a log's place must not hold us; it changes nothing for a regular file.
# O_RDWR: the last byte is looked at, to see whether a line was left torn.
_FILE_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

#: Makes the line that says how many lines were lost, and why.
Notice = Callable[[int, str], bytes]


class Rotation(NamedTuple):
    """When a file makes room, and how much of what it held is kept."""

    #: Size in bytes at which it is put aside.
    size: int
    #: How many predecessors stay.
    keep: int
    compressor: Compressor


class AppendFile:
    """One file that lines are appended to.

    Args:
        data_directory: Absolute path; must exist, is never made here.
        parts: The directories below it, made with mode 0700 when missing.
        name: The file's name.
        notice: Makes the line about lost lines.
        rotation: None for a file that grows without end.
    """

    def __init__(
        self, data_directory: str, parts: Sequence[str], name: str, notice: Notice, rotation: Rotation | None = None
    ) -> None:
        self.name = name
        #: Lines dropped since writing last worked, and why; 0 while all is well.
        self.lost = 0
        self.reason = ""
        self._data_directory = data_directory
        self._parts = tuple(parts)
        self._notice = notice
        self._rotation = rotation
        self._fd = -1
        self._retry_at = 0.0

    @property
    def place(self) -> str:
        """Where the file is in the data directory; what another collector knows it by."""
        return "/".join((*self._parts, self.name))

    @property
    def path(self) -> str:
        """Where the file is; for messages."""
        return os.path.join(self._data_directory, *self._parts, self.name)

    def append(self, block: bytes) -> bool:
        """Write whole lines, or count them as lost; whether they were written. Never raises an OSError."""
        if self.lost and time.monotonic() < self._retry_at:
            self.lost += block.count(b"\n")
            return False
        notice = self._notice(self.lost, self.reason) if self.lost else b""
        written = 0
        data = notice + block if notice else block
        try:
            self._make_ready(len(data))
            while written < len(data):
                # One write nearly always: a regular file takes less only at a limit, and says which at the next one.
                written += os.write(self._fd, data[written:] if written else data)
        except OSError as error:
            self._give_up(error)
            if written >= len(notice):
                self.lost, block = 0, data[written:]
            self.lost += block.count(b"\n")
            return False
        self.lost = 0
        return True

    def resume(self, lost: int, reason: str) -> None:
        """Have lines told of that an earlier collector has lost; they come before whatever is written next."""
        self.lost, self.reason = self.lost + lost, reason

    def settle(self) -> None:
        """Try once more to say what was lost; at the end."""
        self._retry_at = 0.0
        if self.lost:
            self.append(b"")

    def close(self) -> None:
        """Close the file; the next append opens it by its name again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _give_up(self, error: OSError) -> None:
        self.close()
        self.reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror or str(error)
        self._retry_at = time.monotonic() + RETRY_INTERVAL

    def _make_ready(self, coming: int) -> None:
        """Have the file open, the one that its name means, with room for what is coming."""
        if self._fd >= 0:
            status = os.fstat(self._fd)
            if status.st_nlink == 0:  # removed under our hands, perhaps with its directory
                self.close()
            elif self._rotation is None or status.st_size + coming <= self._rotation.size or not status.st_size:
                return
            else:
                self._rotate(self._rotation)
        # Twice at most: the file that is opened may be full already.
        size = self._open()
        if self._rotation is not None and size and size + coming > self._rotation.size:
            self._rotate(self._rotation)
            self._open()

    def _rotate(self, rotation: Rotation) -> None:
        """Put the file aside, remove the oldest of those that were put aside before, and have the others compressed."""
        self.close()
        directory_fd = open_directory(self._data_directory, self._parts)
        try:
            earlier = predecessors(self.name, os.listdir(directory_fd))
            latest = next_predecessor(self.name, time.time(), earlier)
            os.rename(self.name, latest.name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
            kept = [*earlier, latest][-rotation.keep :]
            for old in earlier:
                if old not in kept:
                    _remove(old.name, directory_fd)
        finally:
            os.close(directory_fd)
        for each in kept:
            # Those from before, too: a collector that was killed leaves them as they are.
            if not each.is_compressed:
                rotation.compressor.add(self._data_directory, self._parts, each.name)

    def _open(self) -> int:
        """Open the file and return its size; ends the line that a full disk left torn."""
        directory_fd = open_directory(self._data_directory, self._parts)
        try:
            fd = os.open(self.name, _FILE_FLAGS, 0o600, dir_fd=directory_fd)
        finally:
            os.close(directory_fd)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EPERM, "it is not a regular file")
            check_owner(status)
            if status.st_size and os.pread(fd, 1, status.st_size - 1) != b"\n":
                os.write(fd, b"\n")
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        return status.st_size


def _remove(name: str, directory_fd: int) -> None:
    try:
        os.unlink(name, dir_fd=directory_fd)
    except OSError:  # somebody else was quicker, or has put a directory there; the log goes on either way
        pass
