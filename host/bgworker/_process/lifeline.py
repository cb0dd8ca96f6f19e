"""The lifeline: a pipe whose only write end the host holds, and the lock that outlives it.

When the host dies, however it dies, the kernel closes the write end and every read end
shows POLLHUP. The write end is never inherited: one copy in one worker would blind all.
"""

from __future__ import annotations

import os

from bgworker._baggage import Baggage


class Lifeline:
    """Made once per host life; children get ``read_fd``."""

    def __init__(self) -> None:
        # Both are close-on-exec; the loader gets the read end by name and hands it down by clone.
        self.read_fd, self._write_fd = os.pipe()

    def carry(self, baggage: Baggage) -> list[int]:
        """Return both ends, for the same host when it has executed itself anew: for everybody else it has never gone."""
        return [baggage.pack(self.read_fd), baggage.pack(self._write_fd)]

    @classmethod
    def resume(cls, carried: list[int], baggage: Baggage) -> Lifeline:
        """Return the pipe that ``carry`` has told of."""
        lifeline = cls.__new__(cls)
        lifeline.read_fd, lifeline._write_fd = map(baggage.unpack, carried)
        return lifeline

    def close(self) -> None:
        """Tell every child that the host is gone; the last thing a host does."""
        os.close(self._write_fd)
        os.close(self.read_fd)
