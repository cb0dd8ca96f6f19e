"""The host's side of births: every worker process from the request to the loader until its exit.

A process is born blank and belongs to no slot; it gets its assignment over its own channel
once the host knows its pid. A loader that dies takes no birth with it: what it has not
acknowledged is asked for again, and a child that it made without a word sees its channel
close and leaves.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bgworker._baggage import Baggage
from bgworker._config.descriptors import MAX_IN_FLIGHT
from bgworker._control.connection import Connection, socket_of
from bgworker._control.protocol import MAX_REQUEST_BYTES, Message
from bgworker._core.codec import expect, read, write
from bgworker._host.spares import Spares
from bgworker._loop import Loop
from bgworker._process.reap import Usage
from bgworker._spec import BackgroundWorker

if TYPE_CHECKING:
    from bgworker._host.callers import Caller

#: How long the loader may leave a birth unanswered before it counts as hung, in seconds.
_BIRTH_TIMEOUT: Final = 10.0
#: Exits of children not yet named by the loader, kept to be matched; more than can be in flight at once.
_MAX_STASHED_EXITS: Final = 4096


class Life(NamedTuple):
    """One life of a worker: ``attempt`` counts the launches of one registration."""

    slotno: int
    generation: int
    attempt: int

    def __str__(self) -> str:
        return f"{self.slotno}.{self.generation}.{self.attempt}"


#: The life of a spare: nobody's yet.
NO_LIFE: Final = Life(-1, 0, 0)
_NOBODY: Final = BackgroundWorker(bgw_name="spare")


@dataclass(eq=False)
class WorkerProcess:
    """One process that is, or is being, born for a slot, or ahead for whichever needs one."""

    life: Life
    kind: str
    #: The registration that it is born for; a reload can give its slot another one while it lives.
    worker: BackgroundWorker
    #: The host's end of the channel; a Connection once the process is born.
    channel: socket.socket
    #: The child's end of the channel, and the write ends of both log pipes; closed once the birth is acknowledged.
    child_fds: list[int]
    #: Read ends of both log pipes, kept so that a new collector can take over from a dead one.
    log_fds: list[int]
    requested_at: float
    #: Number of the request for its birth; no other process of this host's life has it.
    birth: int = 0
    pid: int | None = None
    connection: Connection | None = None
    is_abandoned: bool = False
    #: Why it exits, by its own account.
    last_words: str = ""
    #: What it used up; known once it is reaped.
    usage: Usage | None = None
    #: The process as one who asks; set once it is born.
    caller: Caller | None = None
    #: The database that it says it is connected to; empty for the configured one, and until it has said so.
    database: str = ""
    #: Which code it runs, by its own account.
    code: dict[str, str] = field(default_factory=dict)
    #: It says that it executes a program which is not ours: when that has been executed, its channel ends.
    is_executing: bool = False
    #: Channels of notifications that were not queued for it, because it does not read its channel.
    missed: set[str] = field(default_factory=set)
    #: Born ahead of the need for it.
    was_spare: bool = False
    #: It has sent something, so it has read its assignment.
    has_spoken: bool = False

    @property
    def is_unassigned(self) -> bool:
        """Whether it has ended without reading what it was to be; only of a process that has been reaped."""
        connection = self.connection
        # Had anything else been sent, that might be what it did not read.
        return connection is not None and connection.is_unread and connection.messages_sent == 1 and not self.has_spoken

    def carry(self, baggage: Baggage) -> dict[str, Any]:
        """Return what the same host needs to know this process again after it has executed itself anew."""
        return {
            **{name: write(getattr(self, name)) for name in _CARRIED},
            "log_fds": [baggage.pack(fd) for fd in self.log_fds],
            "connection": None if self.connection is None else self.connection.carry(baggage),
        }

    def close_child_fds(self) -> None:
        for fd in self.child_fds:
            os.close(fd)
        self.child_fds.clear()

    def close_log_fds(self) -> None:
        for fd in self.log_fds:
            os.close(fd)
        self.log_fds.clear()


#: What of a process is written as it is. Its connection and the read ends of its log pipes are descriptors; who it is as a
#: caller, ``callers`` knows; it is not born while a host executes itself anew, so that it has no ends of a child.
_CARRIED: Final[dict[str, Any]] = {
    "life": Life, "kind": str, "worker": BackgroundWorker, "requested_at": float, "birth": int, "pid": int | None,
    "is_abandoned": bool, "last_words": str, "database": str, "code": dict[str, str], "is_executing": bool, "missed": set[str],
    "was_spare": bool, "has_spoken": bool,
}  # fmt: skip


class Births:
    """Asks for births, matches answers and exits, knows every worker process by pid and by life.

    Args:
        loop: The host's loop.
        send: Sends to the loader with descriptors; False when no loader is ready.
        on_born: Called with a process that has a pid and its channel open.
        on_failed: Called with a life whose process could not be born or was not wanted any more, and why.
        on_message: Called with a process and each message on its channel.
    """

    def __init__(
        self,
        loop: Loop,
        send: Callable[[Message, list[int]], bool],
        on_born: Callable[[WorkerProcess], None],
        on_failed: Callable[[Life, str], None],
        on_message: Callable[[WorkerProcess, Message], None],
    ) -> None:
        self._loop = loop
        self._send = send
        self._on_born = on_born
        self._on_failed = on_failed
        self._on_message = on_message
        self._last_birth = 0
        self._has_loader = False
        self.spares = Spares()
        self._unborn: dict[int, WorkerProcess] = {}
        #: Wanted while no loader was ready, or while enough were being born, in order.
        self._waiting: deque[tuple[Life, str, BackgroundWorker]] = deque()
        #: Exits of children that the loader may yet name: the last birth asked for by then, and the wait status.
        self._stashed_exits: dict[int, tuple[int, int]] = {}
        self.by_pid: dict[int, WorkerProcess] = {}

    def carry(self) -> dict[str, Any]:
        """Return what is known beside the processes. When it counts there is no loader, so that no birth is in flight."""
        return {"last_birth": self._last_birth, "waiting": write(list(self._waiting)), "leaving": sorted(self.spares.leaving)}

    def resume(self, carried: Mapping[str, Any]) -> None:
        """Take back what ``carry`` has told of.

        Raises:
            UnreadableError: It has not.
        """
        expect(carried, self.carry(), "what is known of births")
        self._last_birth = read(int, carried["last_birth"])
        self._waiting = deque(read(list[tuple[Life, str, BackgroundWorker]], carried["waiting"]))
        self.spares.leaving = read(set[int], carried["leaving"])

    def resume_process(self, carried: Mapping[str, Any], baggage: Baggage) -> WorkerProcess:
        """Return a process that ``WorkerProcess.carry`` has told of; it is not among ``by_pid``: it may have been reaped."""
        expect(carried, (*_CARRIED, "log_fds", "connection"), "a process")
        values = {name: read(kind, carried[name]) for name, kind in _CARRIED.items()}
        connection = carried["connection"]
        assert connection is not None, "only what is born is carried"
        channel = socket_of(connection, baggage)
        process = WorkerProcess(channel=channel, child_fds=[], log_fds=list(map(baggage.unpack, carried["log_fds"])), **values)
        process.connection = self._connect(process, connection, baggage)
        return process

    def _connect(
        self, process: WorkerProcess, carried: Mapping[str, Any] | None = None, baggage: Baggage | None = None
    ) -> Connection:
        return Connection(
            self._loop,
            process.channel,
            lambda message: self._take(process, message),
            lambda reason: self._channel_ended(process),
            limit=MAX_REQUEST_BYTES,
            carried=carried,
            baggage=baggage,
        )

    def request(self, life: Life, kind: str, worker: BackgroundWorker) -> None:
        """Have a process for this life: a spare at once, or one that is asked of the loader.

        What the process is to be it learns when the host knows its pid; as whom and in what surroundings it has to
        know from the start.

        Raises:
            OSError: The host itself has no descriptor left for its pipes.
        """
        # A spare was born without surroundings.
        if kind == "preloaded" and not worker.surroundings():
            self.spares.postpone(time.monotonic())
            if (process := self.spares.take()) is not None:
                process.life, process.worker = life, worker
                self._assign(process)
                return
            if (process := next((p for p in self._unborn.values() if p.life is NO_LIFE), None)) is not None:
                process.life, process.kind, process.worker = life, kind, worker
                return
        if self._waiting or len(self._unborn) >= MAX_IN_FLIGHT or not self._ask(life, kind, worker):
            self._waiting.append((life, kind, worker))

    def _ask_waiting(self) -> None:
        """Ask the loader for what waits, as far as there is room."""
        while self._waiting and self._has_loader and len(self._unborn) < MAX_IN_FLIGHT:
            life, kind, worker = self._waiting.popleft()
            try:
                if not self._ask(life, kind, worker):
                    self._waiting.appendleft((life, kind, worker))
                    return
            except OSError as error:
                self._on_failed(life, f"could not make its pipes: {error.strerror}")

    def ensure_spares(self, now: float) -> None:
        """Ask for the spares that are missing, when nothing is being born and the moment is quiet."""
        due_at = self.spares_due_at()
        if due_at is None or now < due_at:
            return
        try:
            for _ in range(self.spares.missing):
                self._ask(NO_LIFE, "spare", _NOBODY)
        except OSError:  # no descriptor left: the workers need them more
            self.spares.postpone_after_failure(now)

    def spares_due_at(self) -> float | None:
        """Return when ``ensure_spares`` has something to do; None while births are in flight, or there is no loader."""
        return self.spares.due_at if self._has_loader and not self._unborn else None

    def _assign(self, process: WorkerProcess) -> None:
        assert process.pid is not None
        self.by_pid[process.pid] = process
        self._on_born(process)

    def _ask(self, life: Life, kind: str, worker: BackgroundWorker) -> bool:
        """Ask the loader for a process; False when there is none."""
        self._last_birth += 1
        process = self._prepare(self._last_birth, life, kind, worker)
        process.was_spare = kind == "spare"
        message = {"type": "birth", "birth": process.birth, "kind": kind, "surroundings": worker.surroundings()}
        if not self._send(message, process.child_fds):
            self._discard(process)
            return False
        self._unborn[process.birth] = process
        return True

    def _prepare(self, birth: int, life: Life, kind: str, worker: BackgroundWorker) -> WorkerProcess:
        made: list[int] = []
        try:
            ours, theirs = socket.socketpair()
            made += [theirs.detach()]
            out_read, out_write = os.pipe()
            made += [out_read, out_write]
            err_read, err_write = os.pipe()
        except OSError:
            for fd in made:
                os.close(fd)
            raise
        fds = [made[0], out_write, err_write], [out_read, err_read]
        return WorkerProcess(life, kind, worker, ours, *fds, time.monotonic(), birth)

    def _discard(self, process: WorkerProcess) -> None:
        process.close_child_fds()
        process.close_log_fds()
        process.channel.close()

    def loader_is_ready(self) -> None:
        """Ask a new loader for everything that waits."""
        self._has_loader = True
        self.spares.postpone(time.monotonic())
        self._ask_waiting()

    def loader_is_gone(self) -> None:
        """Take back what the loader has not acknowledged; the next one is asked for it. Its spares go with it."""
        self._has_loader = False
        self.spares.drop_all()
        unborn, self._unborn = self._unborn, {}
        self._stashed_exits.clear()
        again = []
        for process in unborn.values():
            # A child it made in its last moment finds its channel closed, and leaves.
            self._discard(process)
            if process.life is NO_LIFE:
                continue
            if process.is_abandoned:
                self._on_failed(process.life, "not wanted any more")
            else:
                again.append((process.life, process.kind, process.worker))
        self._waiting.extendleft(reversed(again))

    def abandon(self, life: Life) -> None:
        """Give up a birth that has no pid yet; it is answered all the same."""
        for process in self._unborn.values():
            if process.life == life:
                process.is_abandoned = True
                return
        if any(each[0] == life for each in self._waiting):
            self._waiting = deque(each for each in self._waiting if each[0] != life)
            self._on_failed(life, "not wanted any more")

    def answered(self, message: Message) -> None:
        """Take the serving loader's answer to a request."""
        if message["type"] == "born":
            self.born(message["birth"], message["pid"])
        else:
            self.failed(message["birth"], message["error"])
        self._ask_waiting()

    def born(self, birth: int, pid: int) -> None:
        """Take the loader's word that a process exists."""
        process = self._unborn.pop(birth, None)
        if process is None:
            return  # asked of a loader that has been replaced: its channel is closed, it leaves by itself
        process.close_child_fds()
        last_birth, status = self._stashed_exits.pop(pid, (0, 0))
        if not self._unborn:
            self._stashed_exits.clear()
        # An exit from before the request was that of another process with the same pid.
        if last_birth >= birth:
            self._discard(process)
            self._was_stillborn(process, f"its process ended at once ({_describe(status)})")
            return
        try:
            process.connection = self._connect(process)
        except OSError as error:  # epoll_ctl(2) has a limit of its own; the blank process finds its channel closed, and leaves
            self._discard(process)
            self._was_stillborn(process, f"could not watch its channel: {error.strerror}")
            return
        process.pid = pid
        if process.life is NO_LIFE:
            self.spares.add(process)
        else:
            self._assign(process)

    def _was_stillborn(self, process: WorkerProcess, reason: str) -> None:
        """Take note that no process came of a request."""
        if process.was_spare:
            self.spares.postpone_after_failure(time.monotonic())
        if process.life is NO_LIFE:
            return
        if process.was_spare and not process.is_abandoned:
            # Somebody has killed it while it was nobody's, for all one knows: its life gets a birth of its own.
            try:
                if not self._ask(process.life, process.kind, process.worker):
                    self._waiting.append((process.life, process.kind, process.worker))
                return
            except OSError as error:
                reason = f"could not make its pipes: {error.strerror}"
        self._on_failed(process.life, reason)

    def _take(self, process: WorkerProcess, message: Message) -> None:
        if process.life is NO_LIFE:
            return  # a spare has nothing to say
        process.has_spoken = True
        process.is_executing = message.get("type") == "executing"
        if not process.is_executing:
            self._on_message(process, message)

    def _channel_ended(self, process: WorkerProcess) -> None:
        # The channel is close-on-exec: its end is the program's beginning. Else the exit tells, and a worker that closes
        # its channel only loses its voice.
        if process.is_executing:
            process.is_executing = False
            self._on_message(process, {"type": "started"})

    def failed(self, birth: int, error: str) -> None:
        """Take the loader's word that a process could not be made."""
        process = self._unborn.pop(birth, None)
        if process is None:
            return
        if not self._unborn:
            self._stashed_exits.clear()
        self._discard(process)
        if process.life is NO_LIFE:
            self.spares.postpone_after_failure(time.monotonic())
        else:
            self._on_failed(process.life, error)

    def exited(self, pid: int, status: int) -> WorkerProcess | None:
        """Take note of a reaped child; return it when it is a worker, else remember it in case the loader names it later."""
        process = self.by_pid.pop(pid, None)
        if process is not None:
            if process.connection is not None:
                process.connection.drain()
                process.connection.close("the process has exited")
            return process
        if self._unborn and len(self._stashed_exits) < _MAX_STASHED_EXITS:
            self._stashed_exits[pid] = (self._last_birth, status)
        return None

    def hung_since(self) -> float | None:
        """Return when the loader should have answered its oldest birth, or None."""
        if not self._unborn:
            return None
        # The first is the oldest: a dictionary keeps the order of the requests.
        return next(iter(self._unborn.values())).requested_at + _BIRTH_TIMEOUT

    def find(self, life: Life) -> WorkerProcess | None:
        """Return the live process of this life."""
        for process in self.by_pid.values():
            if process.life == life:
                return process
        return None


def _describe(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
