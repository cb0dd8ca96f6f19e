"""What databases were like before we let connections into them (C18), kept until they are as they were.

The one file by which a next database process, perhaps under a next host, undoes what a killed
one could not. Written before the server is changed, whole or not at all, and durably; a database
is known by the server's system identifier and its oid, since both it and the url may be renamed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from bgworker._database.places import open_directory, read_file, replace_file
from bgworker.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: In the host's data directory.
JOURNAL_NAME: Final = "opened-databases.json"


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One database that was opened, and its old values."""

    #: The server's system identifier, as pg_control_system() gives it.
    system: str
    oid: int
    #: For people; the database may have another name by now.
    name: str
    #: pg_database.datallowconn and datconnlimit as they were.
    allow_connections: bool
    connection_limit: int


class Journal:
    """The file.

    Args:
        data_directory: The host's.
    """

    def __init__(self, data_directory: str) -> None:
        self._data_directory = data_directory
        self.path = os.path.join(data_directory, JOURNAL_NAME)

    def read(self) -> list[Entry]:
        """Return what is still to be undone, and remove what a killed process did not finish writing.

        Raises:
            HostError: The file is not ours, or not what we wrote.
            OSError: It could not be read.
        """
        with self._directory() as fd:
            data = read_file(fd, JOURNAL_NAME)
            for name in os.listdir(fd):
                if name.startswith(f"{JOURNAL_NAME}."):  # of a process that was killed before it became the file
                    os.unlink(name, dir_fd=fd)
        try:
            return [] if data is None else msgspec.json.decode(data, type=list[Entry])
        except (msgspec.DecodeError, ValueError) as error:
            raise HostError(
                f'file "{self.path}" cannot be read: {error}',
                "It says which databases have to be closed to connections again.",
                "Look into it, put the databases in order with ALTER DATABASE, and remove it.",
            ) from None

    def write(self, entries: Sequence[Entry]) -> None:
        """Put these in place of what the file says; returns when they are on disk.

        Raises:
            HostError: The directory is not ours.
            OSError: It could not be written.
        """
        with self._directory() as fd:
            if entries:
                replace_file(fd, JOURNAL_NAME, msgspec.json.encode(entries) + b"\n", os.geteuid(), os.getegid())
            else:
                try:
                    os.unlink(JOURNAL_NAME, dir_fd=fd)
                except FileNotFoundError:
                    return
            os.fsync(fd)

    @contextmanager
    def _directory(self) -> Iterator[int]:
        fd = open_directory(self._data_directory, {os.geteuid()})
        try:
            yield fd
        finally:
            os.close(fd)
