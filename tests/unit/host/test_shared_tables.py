"""_shm/table.py: what others get of the shared tables cannot be written, resized or taken away (T40)."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import pytest

from bgworker._shm.layout import SlotRecord, read_slot, slot_table_size
from bgworker._shm.table import ActivityTable, SlotTable


@pytest.fixture(params=[SlotTable, ActivityTable])
def table(request: pytest.FixtureRequest) -> Iterator[SlotTable | ActivityTable]:
    table = request.param(4)
    yield table
    table.close()


def test_readers_descriptor_cannot_be_written(table: SlotTable | ActivityTable) -> None:
    """T40: neither by write, nor through a mapping."""
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(table.read_only_fd, b"x", 0)
    with pytest.raises(PermissionError):
        mmap.mmap(table.read_only_fd, 64, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)


def test_nobody_can_resize_it(table: SlotTable | ActivityTable) -> None:
    """T40: a table that shrank would kill whoever has it mapped with SIGBUS; the seals hold for who opens it anew, too."""
    assert not os.get_inheritable(table.read_only_fd)
    fds = [os.dup(table.read_only_fd)]
    try:
        fds.append(os.open(f"/proc/self/fd/{table.read_only_fd}", os.O_RDWR))
    except PermissionError:
        pass  # the slot table's mode lets only root go so far
    for fd in fds:
        for size in (0, 1 << 20):
            with pytest.raises(OSError, match=r"Invalid argument|Operation not permitted"):
                os.ftruncate(fd, size)
        os.close(fd)


def test_slot_that_has_not_changed_is_not_written_again() -> None:
    """Three steps of a launch show the same to readers: a record is written when it differs from the last, and then always."""
    table = SlotTable(2)
    view = memoryview(mmap.mmap(table.read_only_fd, slot_table_size(2), prot=mmap.PROT_READ))
    first, second = SlotRecord(1, 0, 1), SlotRecord(1, 42, 1)
    states = []
    for record in (first, first, second, first):
        table.write(1, record)
        assert read_slot(view, 1) == record
        states.append(bytes(view))
    assert states[0] == states[1]
    assert len({*states}) == 3
    view.release()
    table.close()
