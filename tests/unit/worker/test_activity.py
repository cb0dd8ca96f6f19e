"""The worker's record in the activity table: bytes as the layout wants them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

from bgworker._shm.layout import ACTIVITY_SIZE, SEQ, ActivityRecord, read_activity
from bgworker._worker.activity import Activity


@pytest.fixture
def table() -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.truncate(3 * ACTIVITY_SIZE)
        yield file.fileno()


def read(fd: int) -> ActivityRecord:
    return read_activity(os.pread(fd, 3 * ACTIVITY_SIZE, 0), 1)


def sequence(fd: int) -> int:
    return int(SEQ.unpack(os.pread(fd, 8, ACTIVITY_SIZE))[0])


def test_reports_and_wait_events_share_the_record(table: int) -> None:
    """C28: state, text and wait event are one record of the worker's generation; its neighbours are not touched."""
    activity = Activity(table, 1, 7)
    activity.start()
    activity.report("running", "order 42")
    activity.wait_event("Nap")
    assert read(table) == ActivityRecord(7, "running", "Nap", "order 42")
    activity.wait_event("")
    activity.report("idle", "")
    assert read(table) == ActivityRecord(7, "idle", "", "")
    assert os.pread(table, ACTIVITY_SIZE, 0) == os.pread(table, ACTIVITY_SIZE, 2 * ACTIVITY_SIZE) == bytes(ACTIVITY_SIZE)


def test_nothing_new_is_not_written(table: int) -> None:
    """C28: reporting the same again costs no write."""
    activity = Activity(table, 1, 7)
    activity.start()
    activity.report("running", "x")
    before = sequence(table)
    activity.report("running", "x")
    activity.wait_event("")
    assert sequence(table) == before


@pytest.mark.parametrize("left", [0, 1, 2, 3, 2**64 - 1])
def test_takes_over_whatever_was_left(table: int, left: int) -> None:
    """C28: a predecessor killed in the middle of a write leaves no record torn for ever."""
    os.pwrite(table, SEQ.pack(left), ACTIVITY_SIZE)
    Activity(table, 1, 8).start()
    assert sequence(table) % 2 == 0
    assert read(table).generation == 8


@pytest.mark.parametrize("fd", [-1, 10_000])
def test_without_a_table_nothing_fails(fd: int) -> None:
    """C28: a worker whose table is gone goes on."""
    activity = Activity(fd, 1, 7)
    activity.start()
    activity.report("running", "x")
    activity.wait_event("Nap")
