"""What the kernel offers a process about itself and its parent: prctl(2), by ctypes.

Linux only in effect: elsewhere each call says False, and the lifeline alone ties a process
to its host. Any process of ours may import this room.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

# Numbers of <linux/prctl.h>.
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, argument: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    result: int = _libc.prctl(option, ctypes.c_ulong(argument), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl({option}, {argument}): {os.strerror(error)}")
    return True


def set_pdeathsig(signum: int) -> bool:
    """Ask for a signal when the parent dies (PR_SET_PDEATHSIG).

    Call it after every change of ids (a change clears it) and look at the parent's pid
    again afterwards: a parent that died before the call sends nothing.
    """
    return _prctl(_PR_SET_PDEATHSIG, signum)


def set_child_subreaper() -> bool:
    """Adopt orphaned descendants instead of leaving them to init (PR_SET_CHILD_SUBREAPER)."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_dumpable(dumpable: bool) -> bool:
    """Say whether a process of the same user may read and write our memory (PR_SET_DUMPABLE)."""
    return _prctl(_PR_SET_DUMPABLE, int(dumpable))


def set_no_new_privs() -> bool:
    """Give up set-user-ID programs for this process and all it executes (PR_SET_NO_NEW_PRIVS)."""
    return _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def raise_oom_score(score: int = 300) -> None:
    """Make the kernel prefer this process over the host when memory runs out; best effort (proc(5))."""
    try:
        with open("/proc/self/oom_score_adj", "r+") as file:
            if int(file.read()) < score:
                file.seek(0)
                file.write(str(score))
    except (OSError, ValueError):
        pass  # no /proc, or a container that forbids it: the worker runs all the same


def task_count() -> int:
    """Return how many threads this process has; 1 where the kernel does not tell."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 1
