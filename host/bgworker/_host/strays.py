"""Strays: what a worker has left running in sessions of its own, found and killed when the worker is gone.

The host is a child subreaper: whoever outlives its parents becomes the host's child. So does
much else: a worker that is being born, PostgreSQL, its backends when it has crashed, and as
process 1 of a container every orphan in it. Only what carries the mark of a worker that has
gone (``_process.mark``) is killed. A stray's own children become the host's with its death,
and are found by the next look.

Looks happen after exits, never by the clock, and a few hundred processes at a time.
"""

from __future__ import annotations

import signal
from collections.abc import Collection, Mapping
from typing import Any, Final

from bgworker._process import mark, reap

#: Processes looked at in one turn, so that a machine full of them does not keep the sockets waiting.
_LOOKS_PER_TURN: Final = 256


class Strays:
    """Gives each life of a worker its mark, and ends what carries one that is over."""

    def __init__(self) -> None:
        highest = mark.highest_mark()
        #: Whether processes can be marked on this system.
        self.can_find = highest is not None
        self._highest = self._next = highest or 0
        self._living: dict[int, int] = {}
        #: Found and killed, not reaped yet.
        self.killed: set[int] = set()
        #: Still to be looked at in this look; None while none is going on.
        self._to_look_at: list[int] | None = None
        self._must_look = False

    def carry(self) -> dict[str, Any]:
        """Return which marks are given and which are next, for the same host when it has executed itself anew."""
        return {
            "highest": self._highest,
            "next": self._next,
            "living": [[pid, its_mark] for pid, its_mark in self._living.items()],
            "killed": sorted(self.killed),
        }

    def resume(self, carried: Mapping[str, Any]) -> None:
        """Take back what ``carry`` has told of, and look at everybody."""
        self._highest, self._next = int(carried["highest"]), int(carried["next"])
        self.can_find = self._highest > 0
        self._living = {int(pid): int(its_mark) for pid, its_mark in carried["living"]}
        self.killed = {int(pid) for pid in carried["killed"]}
        self._must_look = self.can_find

    def mark_for(self, pid: int) -> int | None:
        """Return the mark that the worker with this pid is to put on itself, or None."""
        if not self.can_find or self._next <= 1:
            return None
        self._next -= 1
        self._living[pid] = self._next
        return self._next

    def worker_ended(self, pid: int) -> None:
        """Take note that a worker has been reaped; what it left is looked for in this turn or the next."""
        if self._living.pop(pid, None) is not None:
            self._must_look = True

    def child_ended(self, pid: int) -> bool:
        """Take note that a child which is no worker has been reaped; return whether it was a stray that had been killed."""
        # Its children have become ours.
        self._must_look = self.can_find
        if pid in self.killed:
            self.killed.discard(pid)
            return True
        return False

    def give_up(self) -> None:
        """Wait no longer for those that cannot be killed: a set-user-ID program, say, or one that hangs in the kernel."""
        self.killed.clear()

    @property
    def is_looking(self) -> bool:
        """Whether ``look`` has something to do."""
        return self._must_look or self._to_look_at is not None

    def look(self, known: Collection[int]) -> list[int]:
        """Look at the next few processes; kill those that are strays, and return them.

        Args:
            known: Pids of workers and helpers that have not been reaped.
        """
        if self._to_look_at is None:
            if not self._must_look:
                return []
            self._must_look = False
            self._to_look_at = mark.possible_children()
        now, self._to_look_at = self._to_look_at[:_LOOKS_PER_TURN], self._to_look_at[_LOOKS_PER_TURN:] or None
        living = set(self._living.values())
        found = []
        for pid in now:
            if pid in known or pid in self.killed or not mark.is_our_child(pid):
                continue
            its_mark = mark.mark_of(pid)
            # Lower than every mark given: it was lowered on purpose, or by a host that ran in a worker of ours.
            if its_mark is not None and its_mark < self._highest and its_mark not in living:
                reap.signal_session(pid, signal.SIGKILL)
                found.append(pid)
        self.killed.update(found)
        return found
