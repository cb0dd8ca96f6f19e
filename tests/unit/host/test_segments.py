"""_host/segments.py: memory made once, the refusals, and what a crash takes (C31)."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Iterator

import pytest

from bgworker._core.scope import Segment
from bgworker._host.segments import MAX_SEGMENTS, Segments
from bgworker.errors import SharedMemoryError


@pytest.fixture
def segments() -> Iterator[Segments]:
    segments = Segments(10_000)
    yield segments
    segments.close()


def opened(segments: Segments, name: str, size: int | None) -> tuple[Segment, int, int]:
    """Open a segment; return it, its size and its inode."""
    segment, found, fd = segments.open(name, size)
    try:
        assert not os.get_inheritable(fd)
        return segment, found, os.fstat(fd).st_ino
    finally:
        os.close(fd)


def test_memory_is_made_once_for_each_name(segments: Segments) -> None:
    """C31: whoever asks for a name gets the same memory, with or without its size."""
    first = opened(segments, "a", 100)
    assert opened(segments, "a", 100) == opened(segments, "a", None) == first
    assert opened(segments, "b", 100)[2] != first[2]
    assert first[:2] == (Segment("a", 1), 100)


def test_memory_cannot_be_resized(segments: Segments) -> None:
    """C31: no worker can take memory away under another one, which would end with SIGBUS."""
    _segment, _size, fd = segments.open("a", 100)
    try:
        for size in (0, 1 << 20):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, size)
        with pytest.raises(PermissionError):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    finally:
        os.close(fd)


def test_dropped_memory_is_made_anew(segments: Segments) -> None:
    """C31: after a crash the name leads to other memory, of another generation and perhaps another size."""
    first, _, inode = opened(segments, "a", 100)
    segments.drop({first, Segment("never made", 1)})
    again, size, other = opened(segments, "a", 200)
    assert (again, size) == (Segment("a", 2), 200)
    assert other != inode
    segments.drop({first})  # told late of an older one
    assert opened(segments, "a", None)[0] == again


@pytest.mark.parametrize("name", ["", "a" * 64, "a/b", "a b", "ä", "a\n"])
def test_names_are_plain(segments: Segments, name: str) -> None:
    """C31: a name is 1 to 63 plain characters."""
    with pytest.raises(SharedMemoryError, match="cannot be used"):
        segments.open(name, 1)


@pytest.mark.parametrize(
    ("size", "refusal"),
    [
        (101, 'shared memory segment "a" has another size: 100 bytes, not 101'),
        (0, 'shared memory segment "a" has another size: 100 bytes, not 0'),
    ],
)
def test_sizes_must_agree(segments: Segments, size: int, refusal: str) -> None:
    """C31: another size is refused, with both of them."""
    opened(segments, "a", 100)
    with pytest.raises(SharedMemoryError) as error:
        segments.open("a", size)
    assert str(error.value) == refusal


def test_limit_holds_for_all_together(segments: Segments) -> None:
    """C31: max_shared_memory bounds the sum of what is in use."""
    first, _, _ = opened(segments, "a", 9_000)
    with pytest.raises(SharedMemoryError) as error:
        segments.open("b", 1_001)
    assert str(error.value) == 'shared memory segment "b" is too large: 1001 bytes'
    assert error.value.message_detail == "All segments together may have 10000 bytes, and 9000 are in use."
    opened(segments, "b", 1_000)
    segments.drop({first})
    opened(segments, "c", 9_000)
    for size in (-1, 0):
        with pytest.raises(SharedMemoryError, match="is not positive"):
            segments.open("d", size)


def test_names_are_bounded(segments: Segments) -> None:
    """C31: a worker that makes up names does not use up the host's descriptors."""
    for number in range(MAX_SEGMENTS):
        opened(segments, f"n{number}", 1)
    with pytest.raises(SharedMemoryError, match="too many segments"):
        segments.open("one-more", 1)


def test_no_descriptor_left_is_an_answer(segments: Segments) -> None:
    """C31: a host that has no descriptor left refuses, and goes on."""
    opened(segments, "a", 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.dup(0)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe, hard))
    try:
        for name in ("a", "b"):
            with pytest.raises(SharedMemoryError, match="Too many open files"):
                segments.open(name, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    opened(segments, "b", 1)
