"""The latch: an interruptible sleep that loses no wake-up (C23).

A flag says whether the latch is set; a pipe wakes whoever sleeps. The write end is also
Python's wakeup descriptor, so the C-level signal handler writes into it: a Python handler
runs only between two bytecodes, which may be after ``poll()`` has begun to sleep, but the
byte is there already and ``poll()`` returns at once.

Who writes what, in which order: ``set()`` makes the flag true, then writes a byte. The
sleeper drains the pipe, then looks at the flag. So a byte that was drained belongs to a
flag that is seen, and a flag raised after the look has its byte still in the pipe. The
pipe never says *that* the latch is set, only that it is time to look.

Signal handlers, other threads and the channel may set it; only the main thread waits on it.
"""

from __future__ import annotations

import os
import signal
from typing import Final

#: More than any burst of signals leaves; what stays behind makes the next poll() return once for nothing.
_DRAIN_BYTES: Final = 4096


class Latch:
    """One per worker process, made before any signal is unblocked."""

    def __init__(self) -> None:
        self.is_set = False
        self.read_fd, self.write_fd = os.pipe()
        # A full pipe must stop neither a signal handler nor the sleeper: full means "wake up" just as well.
        os.set_blocking(self.read_fd, False)
        os.set_blocking(self.write_fd, False)

    def set(self) -> None:
        """Set the latch; wake the sleeper. Safe in a signal handler and in any thread."""
        # When it is set already, whoever set it has written or is about to write the byte.
        if not self.is_set:
            self.is_set = True
            self.wake()

    def reset(self) -> None:
        """Clear the latch. Look at the work to do after this, never before."""
        self.is_set = False

    def wake(self) -> None:
        """Make the sleeper look around without setting the latch. Safe in a signal handler."""
        try:
            os.write(self.write_fd, b"\0")
        except BlockingIOError:
            pass  # full: the sleeper wakes anyway

    def drain(self) -> None:
        """Empty the pipe. The flag must be looked at after this."""
        try:
            os.read(self.read_fd, _DRAIN_BYTES)
        except BlockingIOError:
            pass

    def arm(self) -> None:
        """Make the C-level signal handler write into the pipe. Main thread only.

        Called before each wait: an event loop or a library may have taken the wakeup
        descriptor for itself and left it at -1.
        """
        signal.set_wakeup_fd(self.write_fd, warn_on_full_buffer=False)

    def close(self) -> None:
        """Give up both ends, in a forked child whose parent goes on using them."""
        os.close(self.read_fd)
        os.close(self.write_fd)
