"""Who asks: a client on the control socket or a worker on its channel; both ask the same things the same way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bgworker._baggage import Baggage
from bgworker._control.connection import Connection
from bgworker._control.protocol import Message, encode, refusal, reply
from bgworker._core.codec import expect, read, write
from bgworker._host.births import WorkerProcess
from bgworker._host.rights import MAX_REMEMBERED, OWNER, Grants, Right
from bgworker._process import reap
from bgworker.errors import HostError

#: Threads that are looked at; the host does not read its way through thousands of files for one signal.
_MAX_THREADS: Final = 256


@dataclass(eq=False)
class Caller:
    """One end of one connection."""

    connection: Connection
    pid: int
    #: The worker that asks, or None for a client.
    worker: WorkerProcess | None = None
    #: Registrations made over this connection; the live ones hold up a smart shutdown.
    handles: set[tuple[int, int]] = field(default_factory=set)
    #: The same, those that are over included, oldest first; what a client registered stays its own to ask about.
    registered: dict[tuple[int, int], None] = field(default_factory=dict)
    is_subscribed: bool = False
    grants: Grants = OWNER
    uid: int = -1
    #: A worker that runs as another user than the host: it may register what that user could run anyway, and no more.
    is_confined: bool = False
    #: Gives a descriptor of the process, for the caller of it to close; without it the pid is that of an unreaped child.
    open_pidfd: Callable[[], int] | None = None

    def carry(self) -> dict[str, Any]:
        """Return what a caller has done and been told; who it is, and its connection, stand elsewhere."""
        return {
            "handles": write(self.handles),
            "registered": write(list(self.registered)),
            "is_subscribed": self.is_subscribed,
        }

    def resume(self, carried: Mapping[str, Any]) -> None:
        """Take back what ``carry`` has told of.

        Raises:
            UnreadableError: It has not.
        """
        expect(carried, self.carry(), "a caller")
        self.handles = read(set[tuple[int, int]], carried["handles"])
        self.registered = dict.fromkeys(read(list[tuple[int, int]], carried["registered"]))
        self.is_subscribed = read(bool, carried["is_subscribed"])

    def note_registered(self, key: tuple[int, int]) -> None:
        """Remember a registration that was made over this connection."""
        self.handles.add(key)
        self.registered[key] = None
        if len(self.registered) > MAX_REMEMBERED:
            del self.registered[next(iter(self.registered))]

    def pidfd(self) -> int:
        """Return a descriptor of this very process, to be closed.

        Raises:
            OSError: It has ended.
        """
        return self.open_pidfd() if self.open_pidfd is not None else os.pidfd_open(self.pid)

    def reply(self, request_id: Any, result: Any) -> None:
        """Answer a request."""
        self.connection.send(reply(request_id, result))

    def refuse(self, request_id: Any, error: HostError) -> None:
        """Answer a request with an error."""
        self.connection.send(refusal(request_id, error))


class Callers:
    """Every caller there is, and what all subscribers are told."""

    def __init__(self) -> None:
        self._all: set[Caller] = set()
        #: Subscribers that asked for notifications, too.
        self.overhearing: set[Caller] = set()

    def all(self) -> list[Caller]:
        """Return every caller."""
        return list(self._all)

    def add(self, caller: Caller) -> None:
        """Take note of a new caller."""
        self._all.add(caller)

    def discard(self, caller: Caller) -> None:
        """Forget a caller whose connection has ended."""
        self._all.discard(caller)
        self.overhearing.discard(caller)

    def overhear(self, caller: Caller, is_wanted: bool) -> None:
        """Tell a subscriber of notifications, or no more."""
        if is_wanted:
            self.overhearing.add(caller)
        else:
            self.overhearing.discard(caller)

    def forget(self, registration: tuple[int, int]) -> None:
        """Take a registration that is over off everybody's list: connections live long, and register much."""
        for caller in self._all:
            caller.handles.discard(registration)

    def by_pid(self, pid: int) -> Caller | None:
        """Return a caller of this process, if it has a connection now."""
        return next((caller for caller in self._all if caller.pid == pid), None)

    def to_notify(self, pid: int, registrar: Caller | None) -> Caller | None:
        """Return the process that bgw_notify_pid names if the registering one may name it.

        A member may name processes of its own user alone, a worker with a user of its own only itself.
        """
        if registrar is None or registrar.pid == pid:
            return registrar
        if registrar.is_confined:
            return None
        found = self.by_pid(pid)
        if found is not None and Right.WORK not in registrar.grants.rights and found.uid != registrar.uid:
            return None
        return found

    def clients(self) -> list[Caller]:
        """Return the callers that are no workers."""
        return [caller for caller in self._all if caller.worker is None]

    def broadcast(self, event: Message) -> None:
        """Tell every subscriber; encoded once."""
        subscribers = [caller for caller in self._all if caller.is_subscribed]
        if subscribers:
            line = encode(event)
            for caller in subscribers:
                caller.connection.send_line(line)

    def broadcast_overheard(self, event: Message) -> None:
        """Tell every subscriber that asked for notifications."""
        line = encode(event)
        for caller in list(self.overhearing):  # one that is given up over this leaves the set
            caller.connection.send_line(line)


class NotifyTarget:
    """The process behind a bgw_notify_pid, held by a pidfd so that it can never be a stranger (C13).

    Args:
        caller: The worker or client that the host knows by this pid.

    Raises:
        OSError: It has ended.
    """

    def __init__(self, caller: Caller) -> None:
        self._pid = caller.pid
        self._fd = caller.pidfd()

    def carry(self, baggage: Baggage) -> list[int]:
        """Return the pid and the descriptor that says whose it is."""
        return [self._pid, baggage.pack(self._fd)]

    @classmethod
    def resume(cls, carried: Sequence[int], baggage: Baggage) -> NotifyTarget:
        """Return the process that ``carry`` has told of; it may have ended meanwhile."""
        target = cls.__new__(cls)
        target._pid, target._fd = int(carried[0]), baggage.unpack(carried[1])
        return target

    def is_ready(self) -> bool:
        """Whether SIGUSR1 has a handler there, or is ignored or blocked; its default action would kill the process."""
        return survives_sigusr1(self._pid)

    def notify(self) -> bool:
        """Send SIGUSR1; return whether it was sent."""
        if not self.is_ready():
            return False
        try:
            signal.pidfd_send_signal(self._fd, signal.SIGUSR1)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)


def survives_sigusr1(pid: int) -> bool:
    """Whether the process would outlive a SIGUSR1, as proc(5) tells of its dispositions and of each thread's mask."""
    try:
        if _has_sigusr1(f"/proc/{pid}/status", "SigIgn:", "SigCgt:"):
            return True
        # Blocked helps only if it is blocked everywhere: the kernel gives the signal to any thread that takes it.
        threads = os.listdir(f"/proc/{pid}/task")
        return 0 < len(threads) <= _MAX_THREADS and all(
            _has_sigusr1(f"/proc/{pid}/task/{thread}/status", "SigBlk:") for thread in threads
        )
    except (OSError, ValueError, IndexError):
        return False


def _has_sigusr1(path: str, *masks: str) -> bool:
    bit = 1 << (signal.SIGUSR1 - 1)
    with open(path) as file:
        return any(int(line.split()[1], 16) & bit for line in file if line.startswith(masks))


def signal_worker(pid: int, signum: int, *, whole_session: bool) -> None:
    """Signal a worker that has not been reaped."""
    if whole_session:
        reap.signal_session(pid, signum)
    else:
        reap.signal_child(pid, signum)
