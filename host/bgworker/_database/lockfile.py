"""postmaster.pid: who runs, or ran, in a PostgreSQL data directory.

PostgreSQL refuses to start while the process that the file names is alive and of the same
user, whatever that process is. Pids are small and come back soon in containers, so a file
left by a crash can name one of our own processes. We can tell: a server's working directory
is its data directory.

It refuses to start as well while the file, or the one beside its socket, is empty: it was
killed between making the file and writing its pid, and no later start would get past that.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from bgworker._database.places import SOCKET_NAME, read_file

LOCK_FILE: Final = "postmaster.pid"
SOCKET_LOCK_FILE: Final = f"{SOCKET_NAME}.lock"
# Lines of the file, counted from 0 (pidfile.h).
_PID_LINE: Final = 0
_SOCKET_LINE: Final = 4
_STATUS_LINE: Final = 7
#: Of the status line: connections are let in (PM_STATUS_READY, PM_STATUS_STANDBY).
_OPEN: Final = ("ready", "standby")


@dataclass(frozen=True)
class LockFile:
    """What postmaster.pid says."""

    pid: int
    #: "" while the server has not got so far.
    socket_directory: str
    #: Whether the server says that it takes connections.
    is_open: bool


def read_lock_file(directory_fd: int) -> LockFile | None:
    """Return what the lock file of an open data directory says, or None if there is none or it says nothing."""
    data = read_file(directory_fd, LOCK_FILE)
    lines = os.fsdecode(data or b"").split("\n")
    try:
        pid = int(lines[_PID_LINE])
    except ValueError:
        return None
    socket_directory = lines[_SOCKET_LINE] if len(lines) > _SOCKET_LINE else ""
    is_open = len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() in _OPEN
    # A stand-alone backend writes its pid negated.
    return LockFile(abs(pid), socket_directory, is_open)


def is_server_of(pid: int, directory_fd: int) -> bool | None:
    """Whether the process is a server of this data directory; False also if it is gone, None if the system does not tell."""
    try:
        there = os.stat(f"/proc/{pid}/cwd")
    except (FileNotFoundError, ProcessLookupError):
        return False if os.path.isdir("/proc/self") else None
    except OSError:
        return None
    here = os.fstat(directory_fd)
    # Compared as files, not as paths: the server may see its directory under another name.
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


class EmptyLocks:
    """Lock files that a killed start left empty: removed once they were empty at two starts in a row.

    Not at once: a server that somebody else starts at this very moment has an empty file too, for microseconds.
    """

    def __init__(self) -> None:
        #: Device, inode and name of each, as found at the start before.
        self._seen: set[tuple[int, int, str]] = set()

    def clear(self, directories: Iterable[tuple[int, str]]) -> list[str]:
        """Look at the lock file of each open directory, and return the names of those that were removed."""
        seen, removed = set(), []
        for directory_fd, name in directories:
            try:
                status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if status.st_size or not stat.S_ISREG(status.st_mode):
                continue
            found = (status.st_dev, status.st_ino, name)
            if found in self._seen:
                os.unlink(name, dir_fd=directory_fd)
                removed.append(name)
            else:
                seen.add(found)
        self._seen = seen
        return removed


def parent_of(pid: int) -> int | None:
    """Return the parent's pid, or None if the process is gone or the system does not tell."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # pid (name) state ppid ...; the name may hold anything, also parentheses.
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None
