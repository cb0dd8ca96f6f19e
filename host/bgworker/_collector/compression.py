"""Compressing the log files that were put aside: a little in each turn of the loop, so that no pipe waits for it.

What cannot be compressed (a full disk) stays as it is, and is tried again when its file is put
aside the next time; so is what was left by a collector that was killed. Must never make a
file appear that was removed meanwhile. ``files`` adds the work, ``loop`` does it.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from bgworker._collector.directories import open_directory
from bgworker._collector.names import COMPRESSED_SUFFIX

#: Bytes of one step: about a millisecond, so that a worker that floods its log is still read as fast as it can be.
_STEP_BYTES: Final = 32_768
#: zlib's code for a gzip file, with its largest window.
_GZIP: Final = 31
_TEMPORARY_SUFFIX: Final = ".tmp"


class _Place(NamedTuple):
    data_directory: str
    parts: tuple[str, ...]
    name: str


class Compressor:
    """The files that are still to be compressed, and the one that is being."""

    def __init__(self) -> None:
        self._waiting: deque[_Place] = deque()
        self._current: _Job | None = None

    @property
    def has_work(self) -> bool:
        """Whether ``step`` has something to do."""
        return self._current is not None or bool(self._waiting)

    def add(self, data_directory: str, parts: Sequence[str], name: str) -> None:
        """Have a file compressed; one that is waited for already is not added twice."""
        place = _Place(data_directory, tuple(parts), name)
        if place not in self._waiting and (self._current is None or self._current.place != place):
            self._waiting.append(place)

    def step(self) -> None:
        """Do a millisecond's worth; never raises an OSError."""
        try:
            if self._current is None:
                # The newest stays longest: in a flood the older ones may be gone before it is their turn.
                self._current = _Job(self._waiting.pop())
            elif self._current.step():
                self._current = None
        except OSError:
            self.abandon()

    def abandon(self) -> None:
        """Give up the file that is being compressed; it stays as it was."""
        if self._current is not None:
            self._current.abandon()
            self._current = None


class _Job:
    """One file on its way from NAME to NAME.gz.

    Raises:
        OSError: It is gone, or is no file that one may read.
    """

    def __init__(self, place: _Place) -> None:
        self.place = place
        self._temporary = place.name + COMPRESSED_SUFFIX + _TEMPORARY_SUFFIX
        self._zlib = zlib.compressobj(level=6, wbits=_GZIP)
        self._directory_fd = open_directory(place.data_directory, place.parts)
        self._source_fd = self._target_fd = -1
        try:
            flags = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            self._source_fd = os.open(place.name, os.O_RDONLY | flags, dir_fd=self._directory_fd)
            self._remove_temporary()  # of a collector that was killed
            self._target_fd = os.open(
                self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o600, dir_fd=self._directory_fd
            )
        except OSError:
            self._close()
            raise

    def step(self) -> bool:
        """Compress one piece; return whether that was the last one."""
        data = os.read(self._source_fd, _STEP_BYTES)
        self._write(self._zlib.compress(data) if data else self._zlib.flush())
        if data:
            return False
        status = os.fstat(self._source_fd)
        if status.st_nlink:  # else it was the oldest by now, and was removed
            os.utime(self._target_fd, ns=(status.st_atime_ns, status.st_mtime_ns))
            os.rename(
                self._temporary,
                self.place.name + COMPRESSED_SUFFIX,
                src_dir_fd=self._directory_fd,
                dst_dir_fd=self._directory_fd,
            )
            os.unlink(self.place.name, dir_fd=self._directory_fd)
        else:
            self._remove_temporary()
        self._close()
        return True

    def abandon(self) -> None:
        """Remove what there is of the compressed file."""
        if self._directory_fd >= 0:
            self._remove_temporary()
            self._close()

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._target_fd, data) :]

    def _remove_temporary(self) -> None:
        try:
            os.unlink(self._temporary, dir_fd=self._directory_fd)
        except OSError:
            pass

    def _close(self) -> None:
        for fd in (self._source_fd, self._target_fd, self._directory_fd):
            if fd >= 0:
                os.close(fd)
        self._source_fd = self._target_fd = self._directory_fd = -1
