"""Descriptors on their way through execve(2): which ones a host takes along when it executes itself anew.

A leaf. A descriptor keeps its number; everything that is not packed is close-on-exec and gone.
The new host unpacks each descriptor where it is needed, and knows at the end whether one was
left over that nobody would ever close. The rooms that hold descriptors of the host import it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any


class Baggage:
    """The descriptors that are carried.

    Args:
        fds: Those that have come; none in the host that is about to go.
    """

    def __init__(self, fds: Iterable[int] = ()) -> None:
        self.packed = set(fds)
        self._unpacked: set[int] = set()

    def pack(self, fd: int) -> int:
        """Take a descriptor along; return it, as the document names it."""
        self.packed.add(fd)
        return fd

    def unpack(self, fd: Any) -> int:
        """Return a descriptor that the document names, close-on-exec again.

        Raises:
            ValueError: It was not packed, or has been unpacked already.
            OSError: It is not open.
        """
        if not isinstance(fd, int) or fd not in self.packed or fd in self._unpacked:
            raise ValueError(f"descriptor {fd!r} was not carried")
        os.set_inheritable(fd, False)
        self._unpacked.add(fd)
        return fd

    def left(self) -> set[int]:
        """Return what was packed and not unpacked."""
        return self.packed - self._unpacked
