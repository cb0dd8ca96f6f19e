"""A timer of the wall clock that also says when somebody has set that clock: timerfd_create(2), by ctypes.

A leaf, Linux only in effect. Deadlines are monotonic everywhere else; only what is to happen at
a time of day needs this. TFD_TIMER_CANCEL_ON_SET makes the descriptor readable when the clock
leaps, also after the machine has slept, so that nobody has to look. The host and workers use it.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

from bgworker._libc import checked, libc

_CLOCK_REALTIME: Final = 0
# Numbers of <sys/timerfd.h>; both flags of creation are those of open(2).
_ABSOLUTE: Final = 1
_CANCEL_ON_SET: Final = 2
#: Some instant after which nothing is waited for: in the year 2242.
_FAR: Final = float(1 << 33)


class _Moments(ctypes.Structure):
    """struct itimerspec: an interval of none, and the instant."""

    _fields_ = (
        ("interval_seconds", ctypes.c_long),
        ("interval_nanoseconds", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("nanoseconds", ctypes.c_long),
    )


class WallClock:
    """A descriptor that becomes readable at an instant of the wall clock, and when that clock is set.

    Raises:
        OSError: This system has no such timer, or no descriptor left.
    """

    def __init__(self) -> None:
        if not hasattr(libc, "timerfd_create"):
            raise OSError(0, "this system has no timerfd")
        self._fd = checked(libc.timerfd_create(_CLOCK_REALTIME, os.O_CLOEXEC | os.O_NONBLOCK))
        try:
            self.wait_until(None)
        except OSError:
            os.close(self._fd)
            raise

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._fd

    def wait_until(self, at: float | None) -> None:
        """Become readable at this instant (seconds since the epoch), or only when the clock is set; what was is forgotten.

        Raises:
            OSError: The kernel does not know such a timer.
        """
        whole, part = divmod(_FAR if at is None else min(max(at, 1.0), _FAR), 1.0)
        moments = _Moments(0, 0, int(whole), int(part * 1e9))
        result = libc.timerfd_settime(self._fd, _ABSOLUTE | _CANCEL_ON_SET, ctypes.byref(moments), None)
        # With this flag the kernel tells here, too, of a clock that was set since the last call; the timer is armed all the same.
        if result < 0 and ctypes.get_errno() != errno.ECANCELED:
            checked(result)

    def was_set(self) -> bool:
        """Whether the clock was set since the timer was armed; takes note of an instant that came. Does not wait."""
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.ECANCELED:
                raise
            return True
        return False

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)
