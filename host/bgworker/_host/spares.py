"""Spares: blank workers born ahead, so that a launch costs a message and not a birth.

A spare is a clone of the serving loader like any other blank worker; it only has no life yet.
It takes no slot and nobody sees it but ps. It belongs to its loader: when that is replaced,
its spares go, because a worker must not start with older code than the loader has.

Spares are made when nothing else is: never while a birth is in flight, and a moment after the
last launch. One that dies without having been taken is replaced after a longer pause, so that
whatever kills them cannot turn into a loop.

Keeps the books; the births are asked for by ``births``, the only room that uses this one.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

from bgworker._process import reap

if TYPE_CHECKING:
    from bgworker._host.births import WorkerProcess

#: Quiet after the last launch before spares are made, in seconds: the worker has had the processor by then.
_QUIET: Final = 0.005
#: The same after a spare has died, or could not be made.
_FAILURE_PAUSE: Final = 1.0


class Spares:
    """Which processes are spare, how many there should be, and when to make more."""

    def __init__(self) -> None:
        #: How many there should be.
        self.wanted = 0
        self._ready: dict[int, WorkerProcess] = {}
        #: Pids of those that have been told to go and are not reaped yet.
        self.leaving: set[int] = set()
        self._refill_at = 0.0

    def __contains__(self, pid: object) -> bool:
        return pid in self._ready or pid in self.leaving

    def pids(self) -> set[int]:
        """Return every process that is spare, or was until it was told to go."""
        return {*self._ready, *self.leaving}

    @property
    def is_leaving(self) -> bool:
        """Whether any that was told to go has not been reaped."""
        return bool(self.leaving)

    @property
    def missing(self) -> int:
        """How many are to be made, if none is in the making."""
        return max(0, self.wanted - len(self._ready))

    @property
    def due_at(self) -> float | None:
        """When to make what is missing, or None."""
        return self._refill_at if self.missing else None

    def want(self, count: int) -> None:
        """Set how many there should be; what is too many goes at once."""
        self.wanted = count
        while len(self._ready) > count:
            self._drop(next(iter(self._ready)))

    def postpone(self, now: float) -> None:
        """Make none until it has been quiet for a moment."""
        self._refill_at = max(self._refill_at, now + _QUIET)

    def postpone_after_failure(self, now: float) -> None:
        """Make none for a while: one has died, or could not be made."""
        self._refill_at = now + _FAILURE_PAUSE

    def add(self, process: WorkerProcess) -> None:
        """Take a process that was born as a spare."""
        assert process.pid is not None
        self._ready[process.pid] = process
        if len(self._ready) > self.wanted:  # the host began to shut down meanwhile
            self._drop(process.pid)

    def take(self) -> WorkerProcess | None:
        """Return a spare that lives, which is one no more; None when there is none."""
        for pid, process in list(self._ready.items()):
            assert process.connection is not None
            if reap.is_stopped(pid):
                # It would not answer, and the registration would be lost with the start timeout.
                self._drop(pid)
                continue
            # A dead one would be found out later, too; but by then the registration has lost time.
            if process.connection.is_open and not reap.has_exited(pid):
                del self._ready[pid]
                return process
        return None

    def drop_all(self) -> None:
        """End every spare."""
        for pid in list(self._ready):
            self._drop(pid)

    def ended(self, pid: int, now: float) -> None:
        """Take note that a spare is dead."""
        if (process := self._ready.pop(pid, None)) is not None:
            _close(process)
            self.postpone_after_failure(now)
        self.leaving.discard(pid)

    def _drop(self, pid: int) -> None:
        # It would leave by itself when its channel closes; this way also if it is stopped.
        reap.signal_child(pid, signal.SIGKILL)
        _close(self._ready.pop(pid))
        self.leaving.add(pid)


def _close(process: WorkerProcess) -> None:
    if process.connection is not None:
        process.connection.close()
    process.close_log_fds()
