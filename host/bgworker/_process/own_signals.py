"""This process's signal mask and dispositions, looked at and set without the price of Python's wrappers.

``signal.pthread_sigmask()`` returns the old mask as members of an enumeration, which it makes of
some sixty signals one by one, with an exception for every real-time signal: 95 microseconds,
where the system call takes two. A worker sets its mask several times before its function's
first line. Any process of ours may import this room.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable
from typing import Any, Final

#: The module in C behind ``signal``; builtin, and there as soon as ``signal`` is.
_c: Final[Any] = sys.modules.get("_signal", signal)

_DEFAULT: Final = int(signal.SIG_DFL)
_SETTABLE: Final = tuple(map(int, signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}))


def set_mask(signals: Iterable[int]) -> None:
    """Block these signals and no others; the handlers of those that are let through have run when this returns."""
    _c.pthread_sigmask(signal.SIG_SETMASK, signals)


def block(signals: Iterable[int]) -> None:
    """Block these signals, too."""
    _c.pthread_sigmask(signal.SIG_BLOCK, signals)


def unblock(signals: Iterable[int]) -> None:
    """Let these signals through."""
    _c.pthread_sigmask(signal.SIG_UNBLOCK, signals)


def is_blocked(signum: int) -> bool:
    """Whether the signal is blocked in this thread."""
    return signum in _c.pthread_sigmask(signal.SIG_BLOCK, ())


def reset_dispositions() -> None:
    """Give every signal its default action, except the two that every Python program ignores."""
    _c.set_wakeup_fd(-1)
    for signum in _SETTABLE:
        if _c.getsignal(signum) != _DEFAULT:
            _c.signal(signum, _DEFAULT)
    # Writing to a closed pipe, or past a file size limit, is an OSError and no death.
    _c.signal(int(signal.SIGPIPE), int(signal.SIG_IGN))
    _c.signal(int(signal.SIGXFSZ), int(signal.SIG_IGN))
