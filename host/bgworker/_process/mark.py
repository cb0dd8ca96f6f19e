"""The mark that a worker's descendants carry, whatever they do: their limit of file locks.

A process that forks twice and takes a session of its own is no descendant of its worker any
more, keeps none of its descriptors and need not keep its environment. A resource limit is
inherited by fork and by exec, and nobody without CAP_SYS_RESOURCE can raise it again.
RLIMIT_LOCKS limits nothing since Linux 2.4.25 (getrlimit(2)) and everybody may read it in
/proc/PID/limits: 62 bits that are free to say which worker a process comes from.

A worker puts its mark on itself before it imports its library; the host, which chose it,
reads the marks of those who have become its children. Nobody else imports this room. Where
there is no /proc, or no such limit, there are no marks.
"""

from __future__ import annotations

import os
import resource
from typing import Final

#: RLIMIT_LOCKS on every architecture of Linux; the resource module does not name it.
_RLIMIT_LOCKS: Final = 10
#: Marks count down from here where the limit is infinite.
_HIGHEST: Final = 1 << 62
#: A limit below this leaves too few marks to be worth it: somebody else has set it for a reason of their own.
_LOWEST: Final = 1 << 20
_LIMIT_NAME: Final = b"Max file locks"


def highest_mark() -> int | None:
    """Return the mark above all that this process may give; None where processes cannot be marked.

    Pids in /proc must be the kernel's names for our own children: with a /proc of another pid namespace they are not.
    """
    try:
        if os.readlink("/proc/self") != str(os.getpid()) or mark_of(os.getpid()) is None:
            return None
        _soft, hard = resource.getrlimit(_RLIMIT_LOCKS)
    except (OSError, ValueError):
        return None
    if hard == resource.RLIM_INFINITY:
        return _HIGHEST
    return hard if hard >= _LOWEST else None


def put_on(mark: int) -> None:
    """Mark this process and all that descend from it; best effort."""
    try:
        resource.setrlimit(_RLIMIT_LOCKS, (mark, mark))
    except (OSError, ValueError):
        pass  # a system that knows no such limit: strays of this worker are then not found


def mark_of(pid: int) -> int | None:
    """Return the limit that may be a mark; infinity counts as above all marks. None: it is gone, or tells nothing."""
    try:
        with open(f"/proc/{pid}/limits", "rb") as file:
            line = next(line for line in file if line.startswith(_LIMIT_NAME))
        hard = line[len(_LIMIT_NAME) :].split()[1]
        return _HIGHEST + 1 if hard == b"unlimited" else int(hard)
    except (OSError, StopIteration, IndexError, ValueError):
        return None


def possible_children() -> list[int]:
    """Return the pids among which all our children are; every process where the kernel lists no children."""
    pid = os.getpid()
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:  # needs CONFIG_PROC_CHILDREN
            return [int(child) for child in file.read().split()]
    except (OSError, ValueError):
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def is_our_child(pid: int) -> bool:
    """Whether the process is a child of ours that is not reaped yet; then its pid cannot become anybody else's."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in parentheses may hold anything; state and parent stand behind it (proc(5)).
            return int(file.read().rpartition(b")")[2].split()[1]) == os.getpid()
    except (OSError, IndexError, ValueError):
        return False
