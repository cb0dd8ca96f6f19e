"""Directories below the data directory: opened one below the other, never through a symbolic link, made when missing.

``files`` and ``compression`` use this room.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Final

_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def open_directory(data_directory: str, parts: Sequence[str]) -> int:
    """Return a descriptor of a directory below the data directory, made when missing.

    Raises:
        OSError: The data directory is missing, or a part is no directory, a symbolic link or somebody else's.
    """
    fd = os.open(data_directory, _DIRECTORY_FLAGS)
    try:
        for part in parts:
            try:
                below = _open_part(fd, part)
            except FileNotFoundError:
                try:
                    os.mkdir(part, 0o700, dir_fd=fd)
                except FileExistsError:  # something was quicker; what it is shows at the next line
                    pass
                below = _open_part(fd, part)
            os.close(fd)
            fd = below
    except OSError:
        os.close(fd)
        raise
    return fd


def _open_part(directory_fd: int, part: str) -> int:
    fd = os.open(part, _DIRECTORY_FLAGS | os.O_NOFOLLOW, dir_fd=directory_fd)
    try:
        check_owner(os.fstat(fd))
    except OSError:
        os.close(fd)
        raise
    return fd


def check_owner(status: os.stat_result) -> None:
    """Refuse what belongs to somebody else.

    Raises:
        OSError: It does.
    """
    # Who owns a file can give it to anybody; a log in it would be theirs to read and to change.
    if status.st_uid != os.geteuid():
        raise OSError(errno.EPERM, f"it belongs to user id {status.st_uid}")
