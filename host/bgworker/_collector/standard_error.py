"""Log lines on stderr, without ever waiting for whoever reads it.

A stuck reader (a stopped terminal, a pager, a full pipe to a log driver) must stop neither the
host, whose messages would pile up behind us, nor the workers. So: what stderr does not take
is queued; when the queue is long the loop stops reading workers, which slows them down to
the reader's pace; when the reader takes nothing for a second it counts as stuck, the workers
are read again and further lines are dropped and counted until it moves.

Only ``sinks`` and ``loop`` use this room.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from bgworker._collector.files import RETRY_INTERVAL, Notice

#: Bytes in the queue at which the workers are slowed down, and at which they may go on.
_CLOGGED_BYTES: Final = 262_144
_RELIEVED_BYTES: Final = 65_536
#: Bytes in the queue at which lines are dropped at once: what exits and the host say comes on top of what is read.
_FULL_BYTES: Final = 4_194_304
#: Seconds without any progress after which the reader counts as stuck.
_STUCK_AFTER: Final = 1.0
#: Most bytes of one write to what may block; a terminal or pipe that polls writable takes them (pipe(7): PIPE_BUF is at least 512).
_CAREFUL_BYTES: Final = 512
_WRITE_BYTES: Final = 65_536


class StandardError:
    """The queue before stderr."""

    def __init__(self, notice: Notice, fd: int = 2) -> None:
        self._notice = notice
        self._fd, self._write = _unblocking(fd)
        self._queue: deque[bytes] = deque()
        self._size = 0
        #: Since when the reader has taken nothing; meaningful while something is queued.
        self._waiting_since = 0.0
        self._is_stuck = False
        self._lost = 0
        self._reason = ""
        self._retry_at = 0.0
        #: Whether the loop should stop reading workers.
        self.is_clogged = False

    def fileno(self) -> int:
        """Return the descriptor to wait on for writing, while ``is_waiting``."""
        return self._fd

    @property
    def is_waiting(self) -> bool:
        """Whether lines are queued."""
        return bool(self._queue)

    @property
    def deadline(self) -> float | None:
        """When ``tick`` wants to be called; only a clogged queue needs it."""
        return self._waiting_since + _STUCK_AFTER if self.is_clogged else None

    def write(self, block: bytes) -> None:
        """Queue whole lines and write what stderr takes now; drops and counts them if it is stuck."""
        if self._is_stuck or self._size > _FULL_BYTES or time.monotonic() < self._retry_at:
            self._lost += block.count(b"\n")
            self._reason = self._reason or "standard error is not read"
            return
        if self._lost:
            # The place in the queue is the right one: behind what came before the gap, ahead of what comes after it.
            block = self._notice(self._lost, self._reason) + block
            self._lost, self._reason = 0, ""
        if not self._queue:
            self._waiting_since = time.monotonic()
        self._queue.append(block)
        self._size += len(block)
        # A queue that existed before waits for the selector's word.
        if len(self._queue) == 1:
            self.flush()
        self.is_clogged = self.is_clogged or self._size > _CLOGGED_BYTES

    def flush(self) -> None:
        """Write as much of the queue as stderr takes."""
        try:
            while self._queue:
                block = self._queue[0]
                written = self._write(block[:_WRITE_BYTES])
                self._size -= written
                self._waiting_since = time.monotonic()
                self._is_stuck = False
                if written < len(block):
                    self._queue[0] = block[written:]
                else:
                    self._queue.popleft()
        except BlockingIOError:
            pass
        except OSError as error:  # the reader has gone, or the disk behind stderr is full
            self._lost += sum(block.count(b"\n") for block in self._queue)
            self._reason = error.strerror or str(error)
            self._retry_at = time.monotonic() + RETRY_INTERVAL
            self._queue.clear()
            self._size = 0
        if self._size < _RELIEVED_BYTES:
            self.is_clogged = False

    def tick(self) -> None:
        """Give a stuck reader up once its time has passed."""
        if self.is_clogged and time.monotonic() >= self._waiting_since + _STUCK_AFTER:
            self._is_stuck = True
            self.is_clogged = False

    def settle(self, timeout: float) -> None:
        """Write what is queued and say what was lost, waiting at most so long for each; at the end."""
        self._wait_for_reader(timeout)
        if self._lost and not self._queue:
            self._is_stuck = False
            self._retry_at = 0.0
            self.write(b"")
            self._wait_for_reader(timeout)

    def unsaid(self) -> tuple[int, str]:
        """Return how many lines nobody has got and was told of, and why; after ``settle``, for another collector."""
        count = self._lost + sum(block.count(b"\n") for block in self._queue)
        return count, self._reason or "standard error is not read"

    def resume(self, lost: int, reason: str) -> None:
        """Have lines told of that an earlier collector has lost."""
        self._lost, self._reason = self._lost + lost, reason

    def _wait_for_reader(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        while self._queue and (left := deadline - time.monotonic()) > 0:
            poll.poll(left * 1000)
            self.flush()

    def close(self) -> None:
        """Close our descriptor; the shared one stays."""
        os.close(self._fd)


def _unblocking(fd: int) -> tuple[int, Callable[[bytes], int]]:
    """Return a descriptor of our own of the same file, to wait on, and a way to write to it that does not wait.

    O_NONBLOCK on the descriptor itself would hit everybody who shares it: the host, the
    shell of the terminal. So the file is opened a second time where that is possible.
    """
    mode = os.fstat(fd).st_mode
    if not stat.S_ISSOCK(mode) and not stat.S_ISREG(mode):
        try:
            # O_NOCTTY: as leader of a session without terminal we would make this one ours.
            own_fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:  # no /proc, another user's terminal, or a pipe that nobody reads any more
            own_fd = os.dup(fd)
            return own_fd, lambda data: _write_carefully(own_fd, data)
        return own_fd, lambda data: os.write(own_fd, data)
    own_fd = os.dup(fd)
    if stat.S_ISREG(mode):
        return own_fd, lambda data: os.write(own_fd, data)
    # The journal. A socket cannot be opened again, but each send can say that it will not wait.
    return own_fd, lambda data: _send(own_fd, data)


def _send(fd: int, data: bytes) -> int:
    with socket.socket(fileno=os.dup(fd)) as sock:
        return sock.send(data, socket.MSG_DONTWAIT)


def _write_carefully(fd: int, data: bytes) -> int:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    if not poll.poll(0):
        raise BlockingIOError
    return os.write(fd, data[:_CAREFUL_BYTES])
