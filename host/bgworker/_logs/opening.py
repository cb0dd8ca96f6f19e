"""Opening a file that the collector wrote: a regular file, or none; also one that was compressed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO, Final

from bgworker._collector.names import COMPRESSED_SUFFIX, Predecessor, predecessors
from bgworker.errors import HostError

CHUNK: Final = 65_536
#: Longest line taken from a file; ours are shorter even when every byte of 16 KiB was escaped.
LONGEST_LINE: Final = 262_144


def open_file(path: str) -> BinaryIO | None:
    """Open a regular file for reading; None if there is none, or something else is in its place.

    Raises:
        HostError: It cannot be read.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            return None
        if error.errno != errno.EMFILE or not _raise_file_limit():
            raise HostError(f'could not read file "{path}": {error.strerror}') from None
        return open_file(path)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    return open(fd, "rb", buffering=CHUNK)


def _raise_file_limit() -> bool:
    """Make room for more open files; merging holds all of them, one per name ever used. Whether there is any."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft != hard


def list_directory(path: str) -> list[str]:
    """Return the names in a directory; none if it is not there."""
    try:
        return os.listdir(path)
    except OSError:
        return []


def predecessors_of(path: str, names: list[str] | None = None) -> list[Predecessor]:
    """Return what was put aside of a file, the oldest first.

    Args:
        path: The file.
        names: Those in its directory, if they are known.
    """
    directory, name = os.path.split(path)
    return predecessors(name, list_directory(directory) if names is None else names)


def old_lines(path: str, old: Predecessor) -> Iterator[bytes]:
    """Yield the lines of a predecessor of a file; none if it has been removed meanwhile."""
    directory = os.path.dirname(path)
    file = open_file(os.path.join(directory, old.name))
    is_compressed = old.is_compressed
    if file is None and not is_compressed:
        # It was compressed since it was listed.
        file, is_compressed = open_file(os.path.join(directory, old.name + COMPRESSED_SUFFIX)), True
    if file is None:
        return
    with file:
        if not is_compressed:
            while line := file.readline(LONGEST_LINE):
                yield line
            return
        import gzip
        import zlib

        try:
            with gzip.GzipFile(fileobj=file) as unpacked:
                while line := unpacked.readline(LONGEST_LINE):
                    yield line
        except (EOFError, OSError, zlib.error):  # damaged, or not what its name says: what could be read was
            return
