"""Locks between processes that the kernel gives back when their holder dies: POSIX record locks on a segment's file.

Of the locks that the kernel has, only these belong to a process: flock(2) and open file
description locks belong to the description, which all who were sent the descriptor share.
A lock is one byte of the file, far behind its end, chosen by the lock's name; nothing is
stored anywhere, so a holder that dies leaves nothing to clean up. Three things follow:

- They do not exclude threads or tasks of one process from each other; the callers see to that.
- Closing *any* descriptor of the file gives up all locks on it, so a segment's is never closed.
- The kernel finds deadlocks, and counts a process as one owner.

Waiting for one is a system call that no deadline ends, and a signal that comes just before it
would not be noticed in it. So a thread waits, and the main thread sleeps where it can be woken.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bgworker._worker.wait import LONGEST_POLL
from bgworker.errors import DeadlockDetected, SharedMemoryError

if TYPE_CHECKING:
    from bgworker._worker.runtime import Runtime

#: The byte under which a segment is initialised; no name leads to it.
INITIALISATION: Final = 0
#: Makes the waiting thread leave its system call. A real-time signal: nothing else of Python or ours uses it.
_WAKE: Final = getattr(signal, "SIGRTMAX", signal.SIGUSR2)
#: Seconds until a thread that was about to enter its system call is signalled again.
_SIGNAL_AGAIN: Final = 0.01


class _Flock(ctypes.Structure):
    """struct flock of fcntl(2), as on 64-bit Linux."""

    _fields_ = (
        ("l_type", ctypes.c_short),
        ("l_whence", ctypes.c_short),
        ("l_start", ctypes.c_longlong),
        ("l_len", ctypes.c_longlong),
        ("l_pid", ctypes.c_int),
    )


def offset_of(name: str) -> int:
    """Return the byte that stands for a lock's name: 62 bits of a hash, so that two names share one practically never."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 2) + 1


def try_lock(fd: int, offset: int) -> bool:
    """Take the lock if nobody has it."""
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, fcntl(2)
        return False
    return True


def unlock(fd: int, offset: int) -> None:
    """Give the lock up."""
    fcntl.lockf(fd, fcntl.LOCK_UN, 1, offset)


def wait_for_lock(runtime: Runtime, fd: int, offset: int, timeout: float | None) -> bool:
    """Wait until the lock is ours; return False when the timeout passes first. Main thread, interrupts deferred.

    Raises:
        DeadlockDetected: Its holder waits for a lock of this process.
        Terminated: The worker has been told to end.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    runtime.latch.arm()
    waiter = Waiter(fd, offset, runtime.latch.wake)
    poller = select.poll()
    poller.register(runtime.latch.read_fd, select.POLLIN)
    if runtime.lifeline_fd >= 0:
        poller.register(runtime.lifeline_fd, select.POLLIN)
    try:
        while not waiter.is_over:
            runtime.interrupts.check()
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                return waiter.cancel()
            for ready_fd, _bits in poller.poll(None if remaining is None else min(remaining, LONGEST_POLL) * 1000):
                if ready_fd == runtime.lifeline_fd:
                    runtime.exit_on_host_death()
                runtime.latch.drain()
    except BaseException:
        if waiter.cancel():
            unlock(fd, offset)
        raise
    waiter.check()
    return True


class Waiter:
    """A thread that waits for one lock, on behalf of the process.

    Args:
        fd: The segment's file.
        offset: The byte that is the lock.
        notify: Called in the thread when the wait is over.
    """

    def __init__(self, fd: int, offset: int, notify: Callable[[], None]) -> None:
        self._fd = fd
        self._offset = offset
        self._notify = notify
        self._is_cancelled = False
        self._error = 0
        #: Held to signal the thread: while somebody does, it cannot have ended.
        self._guard = threading.Lock()
        self._over = threading.Event()
        if signal.getsignal(_WAKE) in (signal.SIG_DFL, signal.SIG_IGN, None):
            signal.signal(_WAKE, lambda _signum, _frame: None)
        self._thread = threading.Thread(target=self._run, name="bgworker lock", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether the lock was got, or cannot be."""
        return self._over.is_set()

    def check(self) -> None:
        """Raise why the wait ended without the lock."""
        if self._error == errno.EDEADLK:
            raise DeadlockDetected(
                "deadlock detected",
                "The process that holds the lock waits for a lock that this process holds.",
                "Take the locks of a segment in the same order everywhere.",
            )
        if self._error:
            raise SharedMemoryError(f"could not wait for a lock of a shared memory segment: {os.strerror(self._error)}")

    def cancel(self) -> bool:
        """End the wait; return whether the lock was got all the same. Returns when the thread waits no more."""
        self._is_cancelled = True
        while True:
            with self._guard:
                if self._over.is_set():
                    return self._error == 0
                assert self._thread.ident is not None
                signal.pthread_kill(self._thread.ident, _WAKE)
            # The signal may have come before the system call: it would wait on.
            self._over.wait(_SIGNAL_AGAIN)

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals() - {_WAKE})
        # Not Python's own call, which goes on after a signal without looking at anything of ours.
        libc = ctypes.CDLL(None, use_errno=True)
        lock = _Flock(fcntl.F_WRLCK, os.SEEK_SET, self._offset, 1, 0)
        error = errno.EINTR
        while error == errno.EINTR and not self._is_cancelled:
            result = libc.fcntl(self._fd, fcntl.F_SETLKW, ctypes.byref(lock))
            error = ctypes.get_errno() if result else 0
        self._error = error
        with self._guard:
            self._over.set()
        self._notify()
