"""Waiting until log files change, without polling where the system can say so. Only ``read`` uses this room."""

from __future__ import annotations

import errno
import os
import select
import struct
import sys
import time
from collections.abc import Sequence
from typing import Final, Protocol

from bgworker._collector.names import LOG_DIRECTORY, WORKERS_DIRECTORY
from bgworker.errors import HostError

_CHUNK: Final = 65_536


class Watch(Protocol):
    """Tells when log files have changed."""

    def wait(self) -> set[str] | None:
        """Wait for a change; return the paths that were written to, or None when files have come or gone."""

    def fileno(self) -> int | None:
        """Return the descriptor that is readable once ``wait`` has something to say; None where there is none."""

    def close(self) -> None:
        """Stop watching."""


def watch(data_directory: str) -> Watch:
    """Begin to watch the log files of a data directory.

    Raises:
        HostError: It cannot be watched.
    """
    return _Inotify(data_directory) if sys.platform == "linux" else _Interval()


class _Interval:
    """Looks twice a second: for systems without inotify, the one place where we poll."""

    def wait(self) -> set[str] | None:
        """Sleep, then say that anything may have changed."""
        time.sleep(0.5)
        return None

    def fileno(self) -> int | None:
        """There is nothing to wait for but the time."""
        return None

    def close(self) -> None:
        """Nothing is held."""


class _Inotify:
    """inotify(7) on the log directories; they may come, go and come back.

    Raises:
        HostError: The data directory cannot be watched.
    """

    # Numbers of <sys/inotify.h>.
    _MODIFY: Final = 0x002
    _MOVED_TO: Final = 0x080
    _CREATE: Final = 0x100
    _ONLYDIR: Final = 0x1000000
    _EVENT: Final = struct.Struct("iIII")

    def __init__(self, data_directory: str) -> None:
        import ctypes

        self._libc = ctypes.CDLL(None, use_errno=True)
        self._errno = ctypes.get_errno
        self._data_directory = data_directory
        #: Which directory a watch is on.
        self._directories: dict[int, str] = {}
        self._fd = int(self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        if self._fd < 0:
            raise HostError(f"could not watch log files: {os.strerror(self._errno())}")
        try:
            self._add_watches()
        except HostError:
            self.close()
            raise

    def wait(self) -> set[str] | None:
        """Wait for a change; return the paths that were written to, or None when files have come or gone."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.poll()
        changed: set[str] = set()
        is_other = False
        events = os.read(self._fd, _CHUNK)
        offset = 0
        while offset < len(events):
            watch, mask, _cookie, length = self._EVENT.unpack_from(events, offset)
            offset += self._EVENT.size
            name = os.fsdecode(events[offset : offset + length].rstrip(b"\0"))
            offset += length
            if mask & self._MODIFY and watch in self._directories:
                changed.add(os.path.join(self._directories[watch], name))
            else:
                is_other = True
        if not is_other:
            return changed
        # Something came, went or was too much for the queue: watch what there is now, and let all be read.
        self._add_watches()
        return None

    def fileno(self) -> int | None:
        """Return the descriptor of inotify."""
        return self._fd

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)

    def _add_watches(self) -> None:
        # From the top: what is made below a directory after it is watched shows as an event.
        is_there = self._add((), self._CREATE | self._MOVED_TO)
        if not is_there:
            raise HostError(f'could not watch directory "{self._data_directory}": it does not exist')
        for parts in (LOG_DIRECTORY, WORKERS_DIRECTORY):
            if not self._add(parts, self._MODIFY | self._CREATE | self._MOVED_TO):
                return  # not there yet, or gone; the directory above it will tell

    def _add(self, parts: Sequence[str], mask: int) -> bool:
        """Watch one directory; whether it is there."""
        path = os.path.join(self._data_directory, *parts)
        watch = self._libc.inotify_add_watch(self._fd, os.fsencode(path), mask | self._ONLYDIR)
        if watch < 0:
            if self._errno() in (errno.ENOENT, errno.ENOTDIR):
                return False
            raise HostError(f'could not watch directory "{path}": {os.strerror(self._errno())}')
        # The same directory has the same number, and a new one of the same name another.
        self._directories[watch] = path
        return True
