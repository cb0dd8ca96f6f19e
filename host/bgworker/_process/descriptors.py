"""Keeps descriptors out of a program that is about to be executed: all but standard input, output and error.

What Python opens is close-on-exec; what a plugin's C library has opened in the loader need
not be. For who executes a program that is not ours.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from typing import Final

#: <linux/close_range.h>, and the system call's number, which is the same on every architecture.
_CLOSE_RANGE: Final = 436
_CLOSE_RANGE_CLOEXEC: Final = 4
_HIGHEST_FD: Final = 0xFFFF_FFFF

_libc = ctypes.CDLL(None, use_errno=True)


def close_at_exec() -> None:
    """Make every descriptor above 2 close-on-exec."""
    first, last, flags = (ctypes.c_uint(number) for number in (3, _HIGHEST_FD, _CLOSE_RANGE_CLOEXEC))
    if sys.platform.startswith("linux") and _libc.syscall(ctypes.c_long(_CLOSE_RANGE), first, last, flags) == 0:
        return
    # A kernel before 5.11, a seccomp filter, or no Linux.
    for name in os.listdir("/dev/fd"):
        if int(name) > 2:
            with contextlib.suppress(OSError):  # the listing's own
                os.set_inheritable(int(name), False)
