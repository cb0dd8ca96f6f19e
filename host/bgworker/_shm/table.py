"""The memory files behind the shared tables: made by the host, mapped by everybody else.

The host writes with pwrite from its own private state and maps nothing: a file that a
peer could damage must never be read, let alone mapped, by the one process that may not
die. Both files are sealed against resizing, so that no reader's mapping can turn into SIGBUS.
"""

from __future__ import annotations

import fcntl
import os
from typing import Any

from bgworker._baggage import Baggage
from bgworker._shm.layout import (
    ACTIVITY_SIZE,
    SEQ,
    ActivityRecord,
    Header,
    SlotRecord,
    activity_offset,
    pack_activity,
    pack_header,
    pack_slot,
    slot_offset,
    slot_table_size,
)


class SlotTable:
    """The host's slot table. Only the host makes one, and only the host writes it."""

    def __init__(self, max_worker_processes: int) -> None:
        self._fd, self.read_only_fd = _make_file("bgworker-slots", slot_table_size(max_worker_processes), mode=0o444)
        self._sequence = [0] * max_worker_processes
        #: What was written last: of three steps of a launch one changes what readers see.
        self._records: list[SlotRecord | None] = [None] * max_worker_processes
        os.pwrite(self._fd, pack_header(Header(max_worker_processes, os.getpid())), 0)
        for slotno in range(max_worker_processes):
            self.write(slotno, SlotRecord(generation=0, pid=0, in_use=0))

    def write(self, slotno: int, record: SlotRecord) -> None:
        """Publish one slot's record; readers see the old one or the new one, never a mixture."""
        if self._records[slotno] == record:
            return
        self._records[slotno] = record
        offset = slot_offset(slotno)
        sequence = self._sequence[slotno]
        os.pwrite(self._fd, SEQ.pack(sequence + 1), offset)
        os.pwrite(self._fd, pack_slot(record), offset + SEQ.size)
        os.pwrite(self._fd, SEQ.pack(sequence + 2), offset)
        self._sequence[slotno] = sequence + 2

    def carry(self, baggage: Baggage) -> dict[str, Any]:
        """Return what the same host needs to go on with the table after it has executed itself anew."""
        return {"fds": [baggage.pack(self._fd), baggage.pack(self.read_only_fd)], "sequence": self._sequence}

    @classmethod
    def resume(cls, carried: dict[str, Any], baggage: Baggage) -> SlotTable:
        """Return the table that ``carry`` has told of."""
        table = cls.__new__(cls)
        table._fd, table.read_only_fd = map(baggage.unpack, carried["fds"])
        table._sequence = [int(number) for number in carried["sequence"]]
        table._records = [None] * len(table._sequence)
        return table

    def close(self) -> None:
        """Close the host's descriptors; mappings of readers stay."""
        os.close(self._fd)
        os.close(self.read_only_fd)


class ActivityTable:
    """Where workers say what they do. The host makes it and hands it out, and never looks into it.

    It writes the records of programs, which cannot.
    """

    def __init__(self, max_worker_processes: int) -> None:
        # Workers of another user write here too: they get the descriptor, the mode only guards a reopen through /proc.
        self.fd, self.read_only_fd = _make_file("bgworker-activity", max_worker_processes * ACTIVITY_SIZE, mode=0o600)
        #: Never read from the table, where anything may stand; only that it changes matters to readers.
        self._seq = 1 << 32

    def write(self, slotno: int, record: ActivityRecord) -> None:
        """Write the record of a slot whose process does not."""
        offset = activity_offset(slotno)
        self._seq += 2
        os.pwrite(self.fd, SEQ.pack(self._seq - 1), offset)
        os.pwrite(self.fd, pack_activity(record), offset + SEQ.size)
        os.pwrite(self.fd, SEQ.pack(self._seq), offset)

    def carry(self, baggage: Baggage) -> dict[str, Any]:
        """Return what the same host needs to go on with the table after it has executed itself anew."""
        return {"fds": [baggage.pack(self.fd), baggage.pack(self.read_only_fd)], "seq": self._seq}

    @classmethod
    def resume(cls, carried: dict[str, Any], baggage: Baggage) -> ActivityTable:
        """Return the table that ``carry`` has told of."""
        table = cls.__new__(cls)
        table.fd, table.read_only_fd = map(baggage.unpack, carried["fds"])
        table._seq = int(carried["seq"])
        return table

    def close(self) -> None:
        """Close the host's descriptors."""
        os.close(self.fd)
        os.close(self.read_only_fd)


def _make_file(name: str, size: int, mode: int) -> tuple[int, int]:
    """Return a read-write and a read-only descriptor of a new memory file of fixed size."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size)
        os.fchmod(fd, mode)
        # Our own system call reopens it: /proc/self/fd names the file whatever its path.
        read_only_fd = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return fd, read_only_fd
    import tempfile  # not before: it takes longer than all of this room

    fd, path = tempfile.mkstemp(prefix=f"{name}-")
    try:
        os.posix_fallocate(fd, 0, size)
        os.fchmod(fd, 0o600)
        return fd, os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.unlink(path)
