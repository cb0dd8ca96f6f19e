"""Reaping: which child has exited, and the signals that go to one. Only the host imports this room.

A child is looked at before it is reaped (WNOWAIT). While it is a zombie its pid and its
process group cannot be given to anybody else, so that what it left running in its own
group can be killed without a chance of hitting a stranger.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Final, NamedTuple

#: Exits handled per turn, so that a storm of them does not keep the sockets waiting.
EXITS_PER_TURN: Final = 500


def exited_children(limit: int = EXITS_PER_TURN) -> Iterator[int]:
    """Yield the pids of children that have exited; the consumer must ``reap`` each before it asks for the next.

    Whoever gets as many as the limit must come again: signals of exits are not counted, and there may be more.
    """
    for _ in range(limit):
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None:
            return
        yield found.si_pid


def has_exited(pid: int) -> bool:
    """Whether a child that has not been reaped is dead; leaves it to ``exited_children``."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def reap(pid: int) -> int:
    """Reap a child that has exited and return its wait status."""
    _pid, status = os.waitpid(pid, 0)  # it is a zombie already: this returns at once
    return status


class Usage(NamedTuple):
    """What a process has used up, itself and the children that it waited for (getrusage(2))."""

    #: Seconds of processor time in its own code, and in the kernel.
    user: float
    system: float
    #: The most memory that it held at once, in bytes; pages that a clone shares with the loader count.
    max_rss: int


def reap_with_usage(pid: int) -> tuple[int, Usage]:
    """Reap a child that has exited and return its wait status and what it used."""
    _pid, status, used = os.wait4(pid, 0)  # it is a zombie already: this returns at once
    unit = 1 if sys.platform == "darwin" else 1024
    return status, Usage(used.ru_utime, used.ru_stime, used.ru_maxrss * unit)


def is_stopped(pid: int) -> bool:
    """Whether a child that has not been reaped is stopped by a signal; nothing is consumed, so that one can look again."""
    if not hasattr(os, "waitid"):
        return False
    try:
        return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def signal_child(pid: int, signum: int) -> None:
    """Signal a child that has not been reaped; between its exit and its reaping this does nothing."""
    try:
        os.kill(pid, signum)
    except (ProcessLookupError, PermissionError):
        pass  # it changed its ids, or is just gone: its exit arrives either way


def signal_session(pid: int, signum: int = signal.SIGKILL) -> None:
    """Signal the process group that an unreaped child leads, itself included."""
    try:
        os.killpg(pid, signum)
    except (ProcessLookupError, PermissionError):
        # Its setsid() has not happened yet, or the group is empty.
        signal_child(pid, signum)
