"""Children of the host that somebody has stopped (SIGSTOP): noticed by SIGCHLD, continued after a while.

A stopped collector takes no output and a stopped PostgreSQL no shutdown; neither would ever be
missed by an exit. The kernel tells the parent of a stop as it tells of an exit, so nothing is
polled: without a stopped child there is no deadline. Continued and not replaced: whoever is
stopped has done nothing wrong, and loses nothing it holds in memory.

Not for workers, which are their operator's to stop and look at, and not for the loader, which
is replaced when it leaves a birth unanswered. Imported by the host alone.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from typing import Final

from bgworker._process import reap

#: How long a stopped child is left alone, in seconds: long enough to look at it, too short to be missed.
PATIENCE: Final = 5.0


class StoppedChildren:
    """Knows who is stopped, and until when that is tolerated.

    Args:
        log: Writes a line of the host's log.
    """

    def __init__(self, log: Callable[..., None]) -> None:
        self._log = log
        #: When each stopped child is continued, by pid.
        self._continue_at: dict[int, float] = {}
        self._patience = PATIENCE

    def look(self, children: Iterable[tuple[str, int]], now: float) -> None:
        """Look who is stopped and continue whose time is over.

        Args:
            children: The name and pid of each child that must not stay stopped, not reaped yet.
            now: Monotonic time.
        """
        before, self._continue_at = self._continue_at, {}
        for name, pid in children:
            if not reap.is_stopped(pid):
                continue
            at = before.get(pid, now + self._patience)
            if now < at:
                self._continue_at[pid] = at
                continue
            reap.signal_child(pid, signal.SIGCONT)
            self._log(
                "WARNING",
                f"{name} (PID {pid}) was stopped by a signal; continued it",
                "It did nothing while it was stopped. What waited for it is done now.",
            )

    def hurry(self) -> None:
        """Continue at once whoever is stopped from now on, or already: the host is shutting down."""
        self._patience = 0.0
        self._continue_at = dict.fromkeys(self._continue_at, 0.0)

    def next_deadline(self) -> float | None:
        """Return when to look again although no signal came; None while nobody is stopped."""
        return min(self._continue_at.values(), default=None)
