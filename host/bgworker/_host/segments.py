"""Shared memory segments of workers: made once, handed out as descriptors, never mapped or read by the host (C31).

A segment is a memory file sealed against resizing, so that nobody who maps it can be killed
by somebody else truncating it. It lives until the host ends, or until a crash of one who is
attached makes its content worthless: then the name is free for new memory, and those that
still have the old one are on their way out. Nothing but ``requests`` and ``host`` use this.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bgworker._baggage import Baggage
from bgworker._core.scope import Segment
from bgworker._shm.layout import SEGMENT_HEADER_SIZE
from bgworker._spec import printable
from bgworker.errors import SharedMemoryError

#: Names that one host has ever heard of; each costs it a descriptor.
MAX_SEGMENTS: Final = 256
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,63}")


@dataclass
class _Memory:
    """One name: its memory, or what is left of it."""

    #: Bytes that workers see.
    size: int
    generation: int
    #: None once a crash has taken the memory.
    fd: int | None


class Segments:
    """Every segment of this host.

    Args:
        limit: The sum of all sizes may not be greater, in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._by_name: dict[str, _Memory] = {}

    def open(self, name: str, size: int | None) -> tuple[Segment, int, int]:
        """Return the segment of this name, its size and a descriptor that the caller closes; make its memory if there is none.

        Args:
            name: As the worker gave it.
            size: In bytes; None takes what is there.

        Raises:
            SharedMemoryError: It cannot be had, with the reason.
        """
        if not _NAME.fullmatch(name):
            raise SharedMemoryError(
                f'shared memory segment name "{printable(name)[:80]}" cannot be used',
                "A name has 1 to 63 characters out of A-Z, a-z, 0-9, _, . and -.",
            )
        memory = self._by_name.get(name)
        if memory is None or memory.fd is None:
            memory = self._make(name, size)
        elif size is not None and size != memory.size:
            raise SharedMemoryError(
                f'shared memory segment "{name}" has another size: {memory.size} bytes, not {size}',
                f"It was made with {memory.size} bytes, and {size} were asked for.",
                "Give every worker that shares it the same size, or leave the size out where it is only attached.",
            )
        assert memory.fd is not None
        try:
            fd = fcntl.fcntl(memory.fd, fcntl.F_DUPFD_CLOEXEC, 0)
        except OSError as error:
            raise _exhausted(name, error) from None
        return Segment(name, memory.generation), memory.size, fd

    def drop(self, segments: Iterable[Segment]) -> None:
        """Forget memory that a crash has made worthless; its name keeps counting."""
        for segment in segments:
            memory = self._by_name.get(segment.name)
            if memory is not None and memory.fd is not None and memory.generation == segment.generation:
                os.close(memory.fd)
                memory.fd = None

    def carry(self, baggage: Baggage) -> dict[str, Any]:
        """Return every name and its memory, for the same host when it has executed itself anew."""
        return {
            name: [memory.size, memory.generation, None if memory.fd is None else baggage.pack(memory.fd)]
            for name, memory in self._by_name.items()
        }

    def resume(self, carried: Mapping[str, Any], baggage: Baggage) -> None:
        """Take back what ``carry`` has told of."""
        for name, (size, generation, fd) in carried.items():
            self._by_name[name] = _Memory(int(size), int(generation), None if fd is None else baggage.unpack(fd))

    def close(self) -> None:
        """Close the host's descriptors; the memory goes with the last process that maps it."""
        for memory in self._by_name.values():
            if memory.fd is not None:
                os.close(memory.fd)
        self._by_name.clear()

    def _make(self, name: str, size: int | None) -> _Memory:
        if size is None:
            raise SharedMemoryError(
                f'shared memory segment "{name}" does not exist',
                "No worker has made it, or a crash has taken its memory.",
                "Give a size, so that whoever comes first makes it.",
            )
        if size < 1:
            raise SharedMemoryError(f'size of shared memory segment "{name}" is not positive: {size}')
        used = sum(memory.size for memory in self._by_name.values() if memory.fd is not None)
        if used + size > self._limit:
            raise SharedMemoryError(
                f'shared memory segment "{name}" is too large: {size} bytes',
                f"All segments together may have {self._limit} bytes, and {used} are in use.",
                "Make it smaller, or raise max_shared_memory in the [host] table and start the host again.",
            )
        if name not in self._by_name and len(self._by_name) >= MAX_SEGMENTS:
            raise SharedMemoryError(
                f'shared memory segment "{name}" cannot be made: too many segments',
                f"A host keeps at most {MAX_SEGMENTS} names of segments as long as it runs.",
                "Use few names, and divide the memory of a segment among those that share it.",
            )
        earlier = self._by_name.get(name)
        generation = 1 if earlier is None else earlier.generation + 1
        memory = self._by_name[name] = _Memory(size, generation, _sealed_memory(name, SEGMENT_HEADER_SIZE + size))
        return memory


def _sealed_memory(name: str, size: int) -> int:
    """Return a memory file of fixed size. Nothing of it is allocated here: that takes time, and is its first user's to do."""
    if not hasattr(os, "memfd_create"):
        raise SharedMemoryError(
            f'shared memory segment "{name}" cannot be made', "This system has no memfd_create(2), which shared memory needs."
        )
    try:
        fd = os.memfd_create(f"bgworker-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as error:
        raise _exhausted(name, error) from None
    try:
        os.ftruncate(fd, size)
        # Workers of another user get the descriptor; the mode only guards a reopen through /proc.
        os.fchmod(fd, 0o600)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError as error:
        os.close(fd)
        raise _exhausted(name, error) from None
    return fd


def _exhausted(name: str, error: OSError) -> SharedMemoryError:
    return SharedMemoryError(
        f'could not open shared memory segment "{name}": {error.strerror}',
        "The host has run out of descriptors or memory.",
        "See to the host's limits (ulimit -n), then let the worker try again.",
    )
