"""Handles of background workers, for clients and workers alike: slot and generation, nothing else.

A handle asks nothing of the host to tell the pid: it reads the slot table, which only the host
writes, and looks whether the connection stands. What it needs is a connection with the three
methods of ``HandleConnection``; a client's and a worker's both have them.

Imported by the client face, the worker face and whoever registers workers. Never opens anything.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Awaitable
from typing import Any, Generic, NamedTuple, NoReturn, Protocol, TypeVar, final

from bgworker._control import operations
from bgworker._shm.layout import NO_PID, NOT_YET_STARTED_PID, InconsistentTable, SlotRecord
from bgworker.errors import HostNotRunning, ProtocolError

__all__ = [
    "AsyncBackgroundWorkerHandle",
    "AsyncHandleConnection",
    "BackgroundWorkerHandle",
    "BgwHandleStatus",
    "HandleConnection",
    "LastExit",
    "WorkerPid",
]

#: Seconds for which a reader takes a record that is being written for a host that was not given the processor.
_TORN_TIMEOUT = 1.0


class BgwHandleStatus(enum.Enum):
    """What a handle says about its worker (bgworker.h)."""

    #: The worker is running.
    STARTED = "STARTED"
    #: The host has not tried to start it yet.
    NOT_YET_STARTED = "NOT_YET_STARTED"
    #: It has exited, for good or until its restart, or another worker holds the slot now.
    STOPPED = "STOPPED"
    #: The host is dead, and so is the worker.
    POSTMASTER_DIED = "POSTMASTER_DIED"


class WorkerPid(NamedTuple):
    """What GetBackgroundWorkerPid gives in C: a status, and through a pointer the pid.

    ``status, pid = handle.get_pid()`` is the usual form.
    """

    status: BgwHandleStatus
    #: The worker's process, with STARTED only.
    pid: int | None


class LastExit(NamedTuple):
    """How a life of a worker ended."""

    #: Exit code, or None when a signal ended it.
    code: int | None
    #: Number of the signal, or None.
    signal: int | None
    #: RFC 3339.
    at: str
    #: A sentence.
    reason: str


class _SlotReader(Protocol):
    def read_slot(self, slotno: int) -> SlotRecord:
        """Return the slot's record, or raise InconsistentTable while it is being written."""

    def is_host_alive(self) -> bool:
        """Whether the host lives; raises HostError when this end was closed."""


class HandleConnection(_SlotReader, Protocol):
    """What a handle needs of a connection to the host."""

    def request(self, method: str, params: dict[str, Any] | None = None, timeout: float | None = None) -> dict[str, Any]:
        """Ask the host; raises HostNotRunning when it is gone and WaitTimeout when the timeout passed."""


class AsyncHandleConnection(_SlotReader, Protocol):
    """What an asyncio handle needs of a connection to the host."""

    def request(self, method: str, params: dict[str, Any] | None = None, timeout: float | None = None) -> Awaitable[dict[str, Any]]:
        """Ask the host; raises HostNotRunning when it is gone and WaitTimeout when the timeout passed."""


_POSTMASTER_DIED = WorkerPid(BgwHandleStatus.POSTMASTER_DIED, None)
_STOPPED = WorkerPid(BgwHandleStatus.STOPPED, None)
_NOT_YET_STARTED = WorkerPid(BgwHandleStatus.NOT_YET_STARTED, None)
_Connection = TypeVar("_Connection", bound=_SlotReader)


class _Handle(Generic[_Connection]):
    """What both kinds of handle are: an opaque value, good for one registration in one host's life."""

    __slots__ = ("_connection", "_generation", "_slotno")

    _connection: _Connection
    _slotno: int
    _generation: int

    def __init__(self) -> None:
        raise TypeError(
            f"{type(self).__name__} has no public constructor: "
            "a handle comes from register_dynamic_background_worker(), find() or handle(text)"
        )

    def get_pid(self) -> WorkerPid:
        """Return status and pid without asking the host (C34).

        STARTED has the pid. STOPPED is also said between two lives of a worker that is restarted,
        as in bgworker.c, and when another worker has been given the slot. The pid was true when
        the table was read, with the host alive after that; the worker may have exited since.
        """
        # In this order: a host that dies between the two steps must not leave us with a pid that was read after its death.
        record = self._read_slot()
        if record is None or not self._connection.is_host_alive():
            return _POSTMASTER_DIED
        if record.generation != self._generation or not record.in_use or record.pid == NO_PID:
            return _STOPPED
        if record.pid == NOT_YET_STARTED_PID:
            return _NOT_YET_STARTED
        return WorkerPid(BgwHandleStatus.STARTED, record.pid)

    def _read_slot(self) -> SlotRecord | None:
        """Return the slot's record; None when it stays torn because the host died while it wrote."""
        try:
            return self._connection.read_slot(self._slotno)
        except InconsistentTable:
            pass
        deadline = time.monotonic() + _TORN_TIMEOUT
        while self._connection.is_host_alive():
            try:
                return self._connection.read_slot(self._slotno)
            except InconsistentTable:
                if time.monotonic() > deadline:
                    raise ProtocolError(
                        "slot table stays inconsistent", "The host has been writing one record for a second."
                    ) from None
            # The host is in the middle of three system calls and waits for a processor: leave it ours.
            time.sleep(0.001)
        return None

    def __str__(self) -> str:
        return f"{self._slotno}.{self._generation}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        # Two hosts, or two lives of one, have slots and generations of the same numbers.
        return (self._connection, self._slotno, self._generation) == (other._connection, other._slotno, other._generation)

    def __hash__(self) -> int:
        return hash((self._slotno, self._generation))

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} cannot be pickled: hand on str(handle), and use client.handle(text) in the other process"
        )


@final
class BackgroundWorkerHandle(_Handle[HandleConnection]):
    """An opaque handle of a background worker (C33); ``str(handle)`` and ``client.handle(text)`` round-trip.

    After the death of the host every call that has a status to give says POSTMASTER_DIED.
    Handles are as thread-safe as the connection they came from, and equal when they came from
    the same connection and mean the same registration.
    """

    __slots__ = ()

    @classmethod
    def _make(cls, connection: HandleConnection, slotno: int, generation: int) -> BackgroundWorkerHandle:
        handle = cls.__new__(cls)
        handle._connection = connection
        handle._slotno = slotno
        handle._generation = generation
        return handle

    def terminate(self) -> BgwHandleStatus:
        """Stop the worker for good (C35) and return the status right after that.

        SIGTERM if it runs; unregistered as soon as it does not. Does not wait, may be repeated,
        and does nothing to a worker that has gone already.
        """
        try:
            self._do(operations.terminate(self))
        except HostNotRunning:
            return BgwHandleStatus.POSTMASTER_DIED
        return self.get_pid().status

    def wait_for_startup(self, timeout: float | None = None) -> WorkerPid:
        """Wait until the host has tried to start the worker (C36).

        STARTED comes with the pid; STOPPED means a failed start, a worker that has exited
        already, or a host that shuts down first (C38).

        Raises:
            WaitTimeout: The timeout, in seconds, passed; the worker goes on.
        """
        return self._wait("startup", timeout)

    def wait_for_shutdown(self, timeout: float | None = None) -> WorkerPid:
        """Wait until the worker exits for the first time from now on: STOPPED, with no pid (C37).

        It returns at that exit even if the worker will be restarted.

        Raises:
            WaitTimeout: The timeout, in seconds, passed; the worker goes on.
        """
        return self._wait("shutdown", timeout)

    def last_exit(self) -> LastExit | None:
        """Return how the worker's last life ended, or None while there is no such thing.

        Raises:
            HostNotRunning: The host is dead; what it knew went with it.
        """
        return last_exit_from(self._do(operations.last_exit(self)))

    def _wait(self, event: str, timeout: float | None) -> WorkerPid:
        try:
            return pid_from_wait(self._do(operations.wait(self, event, timeout)))
        except HostNotRunning:
            return _POSTMASTER_DIED

    def _do(self, operation: operations.Operation[operations.Result]) -> operations.Result:
        return operation.read(self._connection.request(operation.method, operation.params, operation.timeout))


@final
class AsyncBackgroundWorkerHandle(_Handle[AsyncHandleConnection]):
    """The same for asyncio: ``get_pid()`` is a plain call, because it never waits; the rest are coroutines."""

    __slots__ = ()

    @classmethod
    def _make(cls, connection: AsyncHandleConnection, slotno: int, generation: int) -> AsyncBackgroundWorkerHandle:
        handle = cls.__new__(cls)
        handle._connection = connection
        handle._slotno = slotno
        handle._generation = generation
        return handle

    async def terminate(self) -> BgwHandleStatus:
        """Stop the worker for good; see ``BackgroundWorkerHandle.terminate``."""
        try:
            await self._do(operations.terminate(self))
        except HostNotRunning:
            return BgwHandleStatus.POSTMASTER_DIED
        return self.get_pid().status

    async def wait_for_startup(self, timeout: float | None = None) -> WorkerPid:
        """Wait until the host has tried to start the worker; see ``BackgroundWorkerHandle.wait_for_startup``."""
        return await self._wait("startup", timeout)

    async def wait_for_shutdown(self, timeout: float | None = None) -> WorkerPid:
        """Wait until the worker exits; see ``BackgroundWorkerHandle.wait_for_shutdown``."""
        return await self._wait("shutdown", timeout)

    async def last_exit(self) -> LastExit | None:
        """Return how the worker's last life ended; see ``BackgroundWorkerHandle.last_exit``."""
        return last_exit_from(await self._do(operations.last_exit(self)))

    async def _wait(self, event: str, timeout: float | None) -> WorkerPid:
        try:
            return pid_from_wait(await self._do(operations.wait(self, event, timeout)))
        except HostNotRunning:
            return _POSTMASTER_DIED

    async def _do(self, operation: operations.Operation[operations.Result]) -> operations.Result:
        return operation.read(await self._connection.request(operation.method, operation.params, operation.timeout))


def pid_from_wait(answer: dict[str, Any]) -> WorkerPid:
    """Return the answer to a wait as a handle says it.

    Raises:
        ProtocolError: The answer is not one to a wait.
    """
    status, pid = answer.get("status"), answer.get("pid")
    if status == "STARTED" and isinstance(pid, int):
        return WorkerPid(BgwHandleStatus.STARTED, pid)
    if status == "STOPPED":
        return _STOPPED
    raise ProtocolError("answer of the host to a wait has no status")


def last_exit_from(exit_: dict[str, Any] | None) -> LastExit | None:
    """Return an exit as the wire has it as a LastExit."""
    if exit_ is None:
        return None
    return LastExit(exit_.get("code"), exit_.get("signal"), str(exit_.get("at", "")), str(exit_.get("reason", "")))
