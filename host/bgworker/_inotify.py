"""inotify(7): who is told by the kernel when names appear in a directory or vanish from it, and need not look.

A leaf, by ctypes, Linux only in effect. The host watches the place of its control socket with
it, ``run --dev`` the files of libraries, ``bgworker logs -f`` those that it follows.
"""

from __future__ import annotations

import os
import struct
from typing import Final

from bgworker._libc import checked, libc

# Numbers of <sys/inotify.h>.
MODIFY: Final = 0x002
CLOSE_WRITE: Final = 0x008
MOVED_FROM: Final = 0x040
MOVED_TO: Final = 0x080
CREATE: Final = 0x100
DELETE: Final = 0x200
_Q_OVERFLOW: Final = 0x4000
_ONLYDIR: Final = 0x1000000
#: struct inotify_event: watch, mask, cookie, length of the name that follows.
_EVENT: Final = struct.Struct("iIII")
_READ_BYTES: Final = 65_536


class Inotify:
    """One descriptor of inotify, and what the kernel tells by it. Read it when it is readable.

    Raises:
        OSError: This system has no inotify, or gives no more of them to this user.
    """

    def __init__(self) -> None:
        if not hasattr(libc, "inotify_init1"):
            raise OSError(0, "this system has no inotify")
        self._fd = checked(libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._fd

    def watch(self, path: str, mask: int) -> int:
        """Watch a directory; return the number that its events bear, the same again for the same directory.

        Raises:
            OSError: It is not there, or there are no more watches.
        """
        return checked(libc.inotify_add_watch(self._fd, os.fsencode(path), mask | _ONLYDIR))

    def discard(self, watch: int) -> None:
        """Watch a directory no more; one that is gone has taken its watch along."""
        libc.inotify_rm_watch(self._fd, watch)

    def events(self) -> list[tuple[int, int, str]]:
        """Return what has happened, as watch, mask and name; nothing if nothing has. Does not wait."""
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return []
        found = []
        offset = 0
        while offset < len(data):
            watch, mask, _cookie, length = _EVENT.unpack_from(data, offset)
            name = data[offset + _EVENT.size : offset + _EVENT.size + length].rstrip(b"\0")
            offset += _EVENT.size + length
            found.append((watch, mask, os.fsdecode(name)))
        return found

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)


class NameWatch(Inotify):
    """Tells which names of some directories have come or gone.

    Args:
        contents: Tell of files that were written to, too, when whoever wrote closes them.

    Raises:
        OSError: This system has no inotify, or gives no more of them to this user.
    """

    def __init__(self, *, contents: bool = False) -> None:
        super().__init__()
        self._mask = DELETE | MOVED_FROM | MOVED_TO | CREATE | (CLOSE_WRITE if contents else 0)

    def add(self, directory_fd: int) -> int:
        """Watch an open directory, under whatever name it will be; return the number that its events bear.

        Raises:
            OSError: There are no more watches, or /proc is missing.
        """
        return self.watch(f"/proc/self/fd/{directory_fd}", self._mask)

    def changes(self) -> set[tuple[int, str]] | None:
        """Return what has changed, as numbers of directories and names in them; None if it was too much to tell."""
        events = self.events()
        return None if any(mask & _Q_OVERFLOW for _watch, mask, _name in events) else {(watch, name) for watch, _, name in events}
