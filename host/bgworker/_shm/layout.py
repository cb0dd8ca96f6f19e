"""The bytes of the two shared tables and of segments, and how a reader knows a record is whole.

Pure: bytes in, records out. No mmap, no file descriptor here.

Slot table (memfd, sealed against resizing; the host is its only writer)::

    header   64 bytes   magic, layout version, max_worker_processes, host pid
    slot 0   64 bytes   seq, generation, pid, state
    slot 1   64 bytes   ...

Activity table (a second memfd): one record per slot, written by the worker that holds the
slot, read by clients - never by the host, which reads nothing that others can write.

Shared memory segment of workers (a memfd for each): one page of ours, then the workers' own bytes.
The page holds one number, written under the segment's own lock: how far its first user is::

    0  nobody has touched the memory, which is zero
    1  an initialiser is at work, or has ended half-way
    2  ready for everybody

Who writes what, and in what order: a writer makes ``seq`` odd, writes the record, makes
``seq`` even. A reader takes ``seq``, copies the record, takes ``seq`` again, and accepts the
copy only if both are equal and even. Python has no memory barrier; each step is a system
call of the writer (pwrite) or one aligned 8-byte copy of the reader, which orders the
bytes on every machine that Linux's page cache is coherent on.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from bgworker._text import printable

MAGIC: Final = b"BGWSLOTS"
LAYOUT_VERSION: Final = 1
HEADER: Final = struct.Struct("<8sIIi44x")
HEADER_SIZE: Final = 64
SLOT_SIZE: Final = 64

SEQ: Final = struct.Struct("<Q")
#: generation, pid, state; seq stands before it.
_SLOT_BODY: Final = struct.Struct("<QiI")

#: Pid and state of a slot record, besides a real pid (pid_t of BackgroundWorkerSlot: InvalidPid, 0).
NOT_YET_STARTED_PID: Final = -1
NO_PID: Final = 0

ACTIVITY_SIZE: Final = 512
#: generation, then state, wait event and text as length-prefixed UTF-8.
_ACTIVITY_BODY: Final = struct.Struct("<QHHH")
ACTIVITY_STATE_BYTES: Final = 32
ACTIVITY_WAIT_EVENT_BYTES: Final = 64
ACTIVITY_TEXT_BYTES: Final = ACTIVITY_SIZE - 8 - _ACTIVITY_BODY.size - ACTIVITY_STATE_BYTES - ACTIVITY_WAIT_EVENT_BYTES

#: In front of a segment's bytes: one page, so that they are as aligned as memory gets.
SEGMENT_HEADER_SIZE: Final = 4096
SEGMENT_STATE: Final = struct.Struct("<Q")
SEGMENT_UNTOUCHED: Final = 0
SEGMENT_BEGUN: Final = 1
SEGMENT_READY: Final = 2

#: How often a reader retries a record that is being written before it calls the writer gone.
READ_ATTEMPTS: Final = 1000


class Header(NamedTuple):
    """What a reader checks before it trusts the rest."""

    max_worker_processes: int
    host_pid: int


class SlotRecord(NamedTuple):
    """One slot, as ``get_pid()`` needs it."""

    #: Grows by one at each registration into this slot; 0 = never used.
    generation: int
    #: A live worker's pid; NOT_YET_STARTED_PID before the first start; NO_PID between two lives or after the last.
    pid: int
    #: 1 while a registration holds the slot.
    in_use: int


class ActivityRecord(NamedTuple):
    """What a worker last said about itself (C28)."""

    generation: int
    state: str
    wait_event: str
    text: str


class InconsistentTable(Exception):  # noqa: N818 - a finding about the table, not a mistake of the caller
    """The table is not one of ours, or a record stays torn."""


def slot_offset(slotno: int) -> int:
    """Return where the slot's record starts, in bytes."""
    return HEADER_SIZE + slotno * SLOT_SIZE


def slot_table_size(slots: int) -> int:
    """Return the size of a slot table, in bytes."""
    return HEADER_SIZE + slots * SLOT_SIZE


def activity_offset(slotno: int) -> int:
    """Return where the slot's activity record starts, in bytes."""
    return slotno * ACTIVITY_SIZE


def pack_header(header: Header) -> bytes:
    """Return the header's bytes."""
    return HEADER.pack(MAGIC, LAYOUT_VERSION, header.max_worker_processes, header.host_pid)


def unpack_header(data: bytes) -> Header:
    """Return the header.

    Raises:
        InconsistentTable: These bytes are not the header of a slot table that this version reads.
    """
    if len(data) < HEADER_SIZE:
        raise InconsistentTable("slot table is too short")
    magic, version, slots, pid = HEADER.unpack_from(data)
    if magic != MAGIC or version != LAYOUT_VERSION:
        raise InconsistentTable(f"slot table has layout {magic!r} version {version}, expected {MAGIC!r} version {LAYOUT_VERSION}")
    return Header(slots, pid)


def pack_slot(record: SlotRecord) -> bytes:
    """Return the bytes that follow seq."""
    return _SLOT_BODY.pack(*record)


def read_slot(view: memoryview | bytes, slotno: int) -> SlotRecord:
    """Return one whole record of a mapped slot table.

    Raises:
        InconsistentTable: The record stayed torn: its writer died while writing it.
    """
    offset = slot_offset(slotno)
    return SlotRecord(*_SLOT_BODY.unpack(_read_whole(view, offset, _SLOT_BODY.size)))


def pack_activity(record: ActivityRecord) -> bytes:
    """Return the bytes that follow seq; texts that are too long are cut at a character."""
    parts = (
        _cut(record.state, ACTIVITY_STATE_BYTES),
        _cut(record.wait_event, ACTIVITY_WAIT_EVENT_BYTES),
        _cut(record.text, ACTIVITY_TEXT_BYTES),
    )
    return _ACTIVITY_BODY.pack(record.generation, *map(len, parts)) + b"".join(parts)


def read_activity(view: memoryview | bytes, slotno: int) -> ActivityRecord:
    """Return one whole record of a mapped activity table; hostile bytes give inert text, never an error of decoding.

    Raises:
        InconsistentTable: The record stayed torn.
    """
    data = _read_whole(view, activity_offset(slotno), ACTIVITY_SIZE - SEQ.size)
    generation, *lengths = _ACTIVITY_BODY.unpack_from(data)
    if not any(lengths):  # most workers say nothing
        return ActivityRecord(generation, "", "", "")
    at = _ACTIVITY_BODY.size
    texts = []
    for length in lengths:
        texts.append(printable(bytes(data[at : at + length]).decode("utf-8", "replace")))
        at += length
    return ActivityRecord(generation, *texts)


def _read_whole(view: memoryview | bytes, offset: int, size: int) -> bytes:
    body = offset + SEQ.size
    for _ in range(READ_ATTEMPTS):
        (before,) = SEQ.unpack_from(view, offset)
        data = bytes(view[body : body + size])
        (after,) = SEQ.unpack_from(view, offset)
        if before == after and not before & 1:
            return data
    raise InconsistentTable("record is being written and its writer does not finish")


def _cut(text: str, limit: int) -> bytes:
    return text.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore").encode()
