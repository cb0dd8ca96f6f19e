"""Directories and files of ours that others might have tampered with: made, opened, read and replaced with care.

Everything goes through descriptors opened with O_NOFOLLOW, and the owner is looked at
before anything is believed or changed: as root this process would else follow a symbolic
link to anywhere.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Collection
from typing import Final

from bgworker.errors import HostError

#: The socket's name inside its directory; the port is PostgreSQL's own.
SOCKET_NAME: Final = ".s.PGSQL.5432"
#: sun_path holds 108 bytes (unix(7)) and libpq wants a terminating zero; the rest is for clients that are stricter.
MAX_SOCKET_PATH: Final = 99
#: What a directory's name may hold to be usable everywhere a socket directory is written: a comma separates hosts in libpq.
_PLAIN_PATH: Final = re.compile(r"/[\w./+~:=-]*", re.ASCII)
_MAX_FILE_BYTES: Final = 1 << 20


class PlaceRefused(HostError):  # noqa: N818 - named as the other errors of the tree
    """A directory or file is not what we left there; it is not touched."""


def short_directory(data_directory: str) -> str:
    """Return the socket directory for a data directory whose own path is too long or closed; the same at each start."""
    digest = hashlib.sha256(os.fsencode(os.path.abspath(data_directory))).hexdigest()[:16]
    return f"/tmp/bgworker-{os.geteuid()}-{digest}"


def fits_socket(directory: str) -> bool:
    """Whether a socket in this directory has a path that the kernel and libpq take."""
    path = os.path.join(directory, SOCKET_NAME)
    return len(os.fsencode(path)) <= MAX_SOCKET_PATH and _PLAIN_PATH.fullmatch(directory) is not None


def open_directory(path: str, owners: Collection[int]) -> int:
    """Open a directory and return its descriptor; the caller closes it.

    Raises:
        PlaceRefused: It is a symbolic link, no directory, or belongs to somebody else.
        FileNotFoundError: It does not exist.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError:
        kind = "a symbolic link" if os.path.islink(path) else "not a directory"
        raise PlaceRefused(f'cannot use "{path}": it is {kind}', "", "Move it away.") from None
    owner = os.fstat(fd).st_uid
    if owner not in owners:
        os.close(fd)
        raise PlaceRefused(
            f'cannot use "{path}": it belongs to uid {owner}',
            f"Expected is uid {' or '.join(map(str, sorted(owners)))}.",
            "Move it away.",
        )
    return fd


def own_directory(path: str, uid: int, gid: int, mode: int = 0o700) -> None:
    """Make sure that the directory exists, belongs to the user and has the mode; nobody else's is ever changed.

    Raises:
        PlaceRefused: It is a symbolic link, or belongs neither to that user nor to this process's.
    """
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    fd = open_directory(path, {uid, os.geteuid()})
    try:
        status = os.fstat(fd)
        if status.st_uid != uid:
            os.fchown(fd, uid, gid)
        if stat.S_IMODE(status.st_mode) != mode:
            os.fchmod(fd, mode)
    finally:
        os.close(fd)


def remove_socket_directory(path: str, leftovers: Collection[str]) -> None:
    """Remove a socket directory of ours if nothing is left in it but these names; anything else is left alone."""
    try:
        directory_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if set(found := os.listdir(directory_fd)) <= set(leftovers):
            for name in found:
                os.unlink(name, dir_fd=directory_fd)
            os.rmdir(path)
    except OSError:
        pass
    finally:
        os.close(directory_fd)


def read_file(directory_fd: int, name: str) -> bytes | None:
    """Return a small file's bytes, or None if there is no such file.

    Raises:
        PlaceRefused: It is not an ordinary file of reasonable size.
    """
    try:
        # O_NONBLOCK: opening a fifo that somebody put there would wait for ever.
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory_fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise PlaceRefused(f'cannot use file "{name}" of the data directory: it is a symbolic link') from None
        raise
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_FILE_BYTES:
            raise PlaceRefused(f'cannot use file "{name}" of the data directory: it is not an ordinary small file')
        return file.read()


def replace_file(directory_fd: int, name: str, data: bytes, uid: int, gid: int) -> None:
    """Put a file with these bytes there, whole or not at all, whatever stands under that name."""
    temporary = f"{name}.{secrets.token_hex(8)}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory_fd)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            if os.fstat(fd).st_uid != uid:
                os.fchown(fd, uid, gid)
            os.fsync(fd)
        os.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    except BaseException:
        os.unlink(temporary, dir_fd=directory_fd)
        raise
