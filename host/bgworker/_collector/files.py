"""Appending to a file that may vanish, fill up, be taken away or be a trap, without ever failing.

An ``AppendFile`` takes blocks of whole lines. What it cannot write it drops and counts, and
when writing works again the count comes first, as a line of its own. It is the only writer
of its file. Every directory below the data directory is opened relative to the one before
it and never through a symbolic link, and made again when it is gone.

Only ``sinks`` and ``history`` use this room.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Sequence
from typing import Final

from bgworker._collector.names import PREDECESSOR_SUFFIX

#: Seconds between two tries to write to a file that could not be written.
RETRY_INTERVAL: Final = 1.0

_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: a FIFO put in a log's place must not hold us; it changes nothing for a regular file.
# O_RDWR: the last byte is looked at, to see whether a line was left torn.
_FILE_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

#: Makes the line that says how many lines were lost, and why.
Notice = Callable[[int, str], bytes]


class AppendFile:
    """One file that lines are appended to.

    Args:
        data_directory: Absolute path; must exist, is never made here.
        parts: The directories below it, made with mode 0700 when missing.
        name: The file's name.
        notice: Makes the line about lost lines.
        limit: Size in bytes at which the file becomes its own predecessor and a new one begins; None for no limit.
    """

    def __init__(self, data_directory: str, parts: Sequence[str], name: str, notice: Notice, limit: int | None = None) -> None:
        self.name = name
        #: Lines dropped since writing last worked, and why; 0 while all is well.
        self.lost = 0
        self.reason = ""
        self._data_directory = data_directory
        self._parts = tuple(parts)
        self._notice = notice
        self._limit = limit
        self._fd = -1
        self._retry_at = 0.0

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
            elif self._limit is None or status.st_size + coming <= self._limit or not status.st_size:
                return
            else:
                self._rotate()
        # Twice at most: the file that is opened may be full already.
        size = self._open()
        if self._limit is not None and size and size + coming > self._limit:
            self._rotate()
            self._open()

    def _rotate(self) -> None:
        self.close()
        directory_fd = open_directory(self._data_directory, self._parts)
        try:
            os.rename(self.name, self.name + PREDECESSOR_SUFFIX, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
        finally:
            os.close(directory_fd)

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
            _check_owner(status)
            if status.st_size and os.pread(fd, 1, status.st_size - 1) != b"\n":
                os.write(fd, b"\n")
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        return status.st_size


def open_directory(data_directory: str, parts: Sequence[str]) -> int:
    """Return a descriptor of a directory below the data directory, made when missing.

    Raises:
        OSError: The data directory is missing, or a part is no directory, a symbolic link or somebody else's.
    """
    fd = os.open(data_directory, _DIRECTORY_FLAGS)
    try:
        for part in parts:
            try:
                below = _open_part(fd, part)
            except FileNotFoundError:
                try:
                    os.mkdir(part, 0o700, dir_fd=fd)
                except FileExistsError:  # something was quicker; what it is shows at the next line
                    pass
                below = _open_part(fd, part)
            os.close(fd)
            fd = below
    except OSError:
        os.close(fd)
        raise
    return fd


def _open_part(directory_fd: int, part: str) -> int:
    fd = os.open(part, _DIRECTORY_FLAGS | os.O_NOFOLLOW, dir_fd=directory_fd)
    try:
        _check_owner(os.fstat(fd))
    except OSError:
        os.close(fd)
        raise
    return fd


def _check_owner(status: os.stat_result) -> None:
    # Who owns a file can give it to anybody; a log in it would be theirs to read and to change.
    if status.st_uid != os.geteuid():
        raise OSError(errno.EPERM, f"it belongs to user id {status.st_uid}")
