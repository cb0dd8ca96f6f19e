"""The slot table as a worker sees it: mapped read-only, no round trip to the host.

Mapped at the first look: most workers hold no handles and never look.
"""

from __future__ import annotations

import mmap
import os

from bgworker._shm.layout import HEADER_SIZE, SlotRecord, read_slot, slot_table_size, unpack_header


class SlotView:
    """Reader of the slot table.

    Args:
        fd: The table; -1 when there is no host.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._view: memoryview | None = None
        self._slots = 0

    def read(self, slotno: int) -> SlotRecord:
        """Return one slot's record. May be stale when you read it.

        Raises:
            InconsistentTable: The table is not one of ours, or the record stays torn.
            IndexError: There is no such slot.
        """
        view = self._view or self._map()
        if not 0 <= slotno < self._slots:
            raise IndexError(f"slot table has no slot {slotno}")
        return read_slot(view, slotno)

    def _map(self) -> memoryview:
        header = unpack_header(os.pread(self._fd, HEADER_SIZE, 0))
        self._slots = header.max_worker_processes
        # The file is sealed against shrinking; the length is asked for, so that a short one is an error here and no SIGBUS later.
        self._view = memoryview(mmap.mmap(self._fd, slot_table_size(self._slots), prot=mmap.PROT_READ))
        return self._view
