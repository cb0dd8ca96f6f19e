"""Waiting until log files change, without polling where the system can say so. Only ``read`` uses this room."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Sequence
from typing import Protocol

from bgworker import _inotify
from bgworker._collector.names import LOG_DIRECTORY, WORKERS_DIRECTORY
from bgworker.errors import HostError


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
    return _Changes(data_directory) if sys.platform == "linux" else _Interval()


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


class _Changes:
    """inotify(7) on the log directories; they may come, go and come back.

    Raises:
        HostError: The data directory cannot be watched.
    """

    def __init__(self, data_directory: str) -> None:
        self._data_directory = data_directory
        #: Which directory a watch is on.
        self._directories: dict[int, str] = {}
        try:
            self._inotify = _inotify.Inotify()
        except OSError as error:
            raise HostError(f"could not watch log files: {error.strerror}") from None
        try:
            self._add_watches()
        except HostError:
            self.close()
            raise

    def wait(self) -> set[str] | None:
        """Wait for a change; return the paths that were written to, or None when files have come or gone."""
        poll = select.poll()
        poll.register(self._inotify.fileno(), select.POLLIN)
        poll.poll()
        changed: set[str] = set()
        is_other = False
        for watch, mask, name in self._inotify.events():
            if mask & _inotify.MODIFY and watch in self._directories:
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
        return self._inotify.fileno()

    def close(self) -> None:
        """Stop watching."""
        self._inotify.close()

    def _add_watches(self) -> None:
        # From the top: what is made below a directory after it is watched shows as an event.
        if not self._add((), _inotify.CREATE | _inotify.MOVED_TO):
            raise HostError(f'could not watch directory "{self._data_directory}": it does not exist')
        for parts in (LOG_DIRECTORY, WORKERS_DIRECTORY):
            if not self._add(parts, _inotify.MODIFY | _inotify.CREATE | _inotify.MOVED_TO):
                return  # not there yet, or gone; the directory above it will tell

    def _add(self, parts: Sequence[str], mask: int) -> bool:
        """Watch one directory; whether it is there."""
        path = os.path.join(self._data_directory, *parts)
        try:
            # The same directory has the same number, and a new one of the same name another.
            self._directories[self._inotify.watch(path, mask)] = path
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise HostError(f'could not watch directory "{path}": {error.strerror}') from None
        return True
