"""postmaster.pid: who runs, or ran, in a PostgreSQL data directory.

PostgreSQL refuses to start while the process that the file names is alive and of the same
user, whatever that process is. Pids are small and come back soon in containers, so a file
left by a crash can name one of our own processes. We can tell: a server's working directory
is its data directory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from bgworker._database.places import read_file

LOCK_FILE: Final = "postmaster.pid"
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


def parent_of(pid: int) -> int | None:
    """Return the parent's pid, or None if the process is gone or the system does not tell."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # pid (name) state ppid ...; the name may hold anything, also parentheses.
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None
