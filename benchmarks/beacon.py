"""Where workers say that they run: one FIFO, one line for each life of a worker.

A line is ``NUMBER NANOSECONDS PID``: which worker, the monotonic clock in the first line of its
code, and its process. Every way writes the same line, from Python, C or JavaScript's children.
Waiting is waiting for the FIFO, with a deadline; nobody polls a supervisor for its workers.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Self

from benchmarks.harness import DEADLINE


class Arrival(NamedTuple):
    """A worker's first line of code."""

    #: Monotonic, in nanoseconds.
    at: int
    pid: int


class Late(TimeoutError):  # noqa: N818 - a state of the workers
    """Workers that were asked for did not come."""


class Beacon:
    """The reading end. Each worker's lives are kept until they are taken.

    Args:
        path: Of the FIFO, which is made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        os.chmod(path, 0o666)  # PostgreSQL's workers are another user's
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._rest = b""
        self._lives: dict[int, list[Arrival]] = {}
        self._began: dict[int, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def wait(self, number: int, timeout: float = DEADLINE) -> Arrival:
        """Return the oldest life of this worker that has not been taken.

        Raises:
            Late: It did not come.
        """
        return self.wait_all([number], timeout)[number]

    def wait_all(self, numbers: Iterable[int], timeout: float = DEADLINE) -> dict[int, Arrival]:
        """Return one life of each of these workers.

        Raises:
            Late: Some did not come; their lives are left as they were.
        """
        wanted = set(numbers)
        deadline = time.monotonic() + timeout
        while missing := {number for number in wanted if not self._lives.get(number)}:
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                raise Late(f"{len(missing)} of {len(wanted)} workers did not start within {timeout:g} s")
        return {number: self._lives[number].pop(0) for number in wanted}

    def forget(self) -> None:
        """Drop what has come and was not waited for."""
        while self._read(0):
            pass
        self._lives.clear()

    def _read(self, timeout: float) -> bool:
        if not select.select([self._fd], [], [], timeout)[0]:
            return False
        *lines, self._rest = (self._rest + os.read(self._fd, 1 << 16)).split(b"\n")
        for line in lines:
            number, at, pid = map(int, line.split())
            self._lives.setdefault(number, []).append(Arrival(at, pid))
            self._began[pid] = _start_of(pid)
        return True

    @property
    def pids(self) -> set[int]:
        """Return the workers that live; a pid that was given to another process since is none."""
        self._began = {pid: began for pid, began in self._began.items() if began and _start_of(pid) == began}
        return set(self._began)


def _start_of(pid: int) -> str:
    """Return when a process was started, in the kernel's ticks; nothing if it has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
