"""Handles over a connection that is three functions."""

from __future__ import annotations

import asyncio
import copy
import pickle
from typing import Any

import pytest

from bgworker._handle import AsyncBackgroundWorkerHandle, BackgroundWorkerHandle, BgwHandleStatus, LastExit, WorkerPid
from bgworker._shm.layout import NO_PID, NOT_YET_STARTED_PID, InconsistentTable, SlotRecord
from bgworker.errors import HostError, HostNotRunning, NoFreeSlot, WaitTimeout, WorkerNotFound

RUNNING = SlotRecord(2, 4711, 1)


class Connection:
    """What a client's and a worker's connection have in common, in memory."""

    def __init__(self, record: SlotRecord = RUNNING, *, is_alive: bool = True) -> None:
        self.record = record
        self.is_alive = is_alive
        self.torn_reads = 0
        self.answer: Any = {}
        self.requests: list[tuple[str, dict[str, Any] | None, float | None]] = []
        self.steps: list[str] = []

    def request(self, method: str, params: dict[str, Any] | None = None, timeout: float | None = None) -> dict[str, Any]:
        """Note the request and give the answer that the test chose."""
        self.requests.append((method, params, timeout))
        if isinstance(self.answer, HostError):
            raise self.answer
        answer: dict[str, Any] = self.answer
        return answer

    def read_slot(self, slotno: int) -> SlotRecord:
        """Give the record, or a torn one for as many times as the test chose."""
        assert slotno == 3
        self.steps.append("read")
        if self.torn_reads:
            self.torn_reads -= 1
            raise InconsistentTable("torn")
        return self.record

    def is_host_alive(self) -> bool:
        """Say what the test chose."""
        self.steps.append("alive")
        return self.is_alive


class AsyncConnection(Connection):
    """The same, asked by await."""

    async def request(self, method: str, params: dict[str, Any] | None = None, timeout: float | None = None) -> dict[str, Any]:  # type: ignore[override]
        """Do the same, awaited."""
        return Connection.request(self, method, params, timeout)


def make(connection: Connection, generation: int = 2) -> BackgroundWorkerHandle:
    return BackgroundWorkerHandle._make(connection, 3, generation)


STATUSES = [
    (SlotRecord(2, NOT_YET_STARTED_PID, 1), WorkerPid(BgwHandleStatus.NOT_YET_STARTED, None)),
    (RUNNING, WorkerPid(BgwHandleStatus.STARTED, 4711)),
    (SlotRecord(2, NO_PID, 1), WorkerPid(BgwHandleStatus.STOPPED, None)),
    (SlotRecord(2, 4711, 0), WorkerPid(BgwHandleStatus.STOPPED, None)),
    (SlotRecord(3, 4711, 1), WorkerPid(BgwHandleStatus.STOPPED, None)),
    (SlotRecord(3, NOT_YET_STARTED_PID, 1), WorkerPid(BgwHandleStatus.STOPPED, None)),
    (SlotRecord(0, 0, 0), WorkerPid(BgwHandleStatus.STOPPED, None)),
]


@pytest.mark.parametrize(("record", "expected"), STATUSES)
def test_get_pid(record: SlotRecord, expected: WorkerPid) -> None:
    """C34: every state of the slot gives its status; only STARTED has a pid; nothing is asked of the host."""
    connection = Connection(record)
    assert make(connection).get_pid() == expected
    assert AsyncBackgroundWorkerHandle._make(AsyncConnection(record), 3, 2).get_pid() == expected
    assert connection.requests == []


@pytest.mark.parametrize("record", [record for record, _expected in STATUSES])
def test_get_pid_of_a_dead_host(record: SlotRecord) -> None:
    """C34: whatever the table still says, a dead host's handle says POSTMASTER_DIED."""
    assert make(Connection(record, is_alive=False)).get_pid() == (BgwHandleStatus.POSTMASTER_DIED, None)


def test_order_of_looks() -> None:
    """C34: the table is read before the host is known to be alive, or a pid read after its death could be taken for good."""
    connection = Connection()
    make(connection).get_pid()
    assert connection.steps == ["read", "alive"]


def test_torn_record() -> None:
    """A record that is being written is read again; when its writer is dead, so is the host."""
    connection = Connection()
    connection.torn_reads = 3
    assert make(connection).get_pid().pid == 4711
    connection.torn_reads = 10**9
    connection.is_alive = False
    assert make(connection).get_pid().status is BgwHandleStatus.POSTMASTER_DIED


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"status": "STARTED", "pid": 4711, "reason": ""}, WorkerPid(BgwHandleStatus.STARTED, 4711)),
        ({"status": "STOPPED", "pid": None, "reason": "exit 0"}, WorkerPid(BgwHandleStatus.STOPPED, None)),
        (HostNotRunning("gone"), WorkerPid(BgwHandleStatus.POSTMASTER_DIED, None)),
    ],
)
def test_waits(answer: Any, expected: WorkerPid) -> None:
    """C36, C37: a wait ends with STARTED and pid, STOPPED or POSTMASTER_DIED, in both kinds of handle."""
    for event in ("startup", "shutdown"):
        connection = Connection()
        connection.answer = answer
        assert getattr(make(connection), f"wait_for_{event}")(timeout=2.0) == expected
        assert connection.requests == [("wait", {"handle": "3.2", "for": event, "timeout": 2.0}, 3.0)]
        twin = AsyncConnection()
        twin.answer = answer
        handle = AsyncBackgroundWorkerHandle._make(twin, 3, 2)
        assert asyncio.run(getattr(handle, f"wait_for_{event}")(timeout=2.0)) == expected
        assert twin.requests == connection.requests


@pytest.mark.parametrize("error", [WaitTimeout("timed out"), WorkerNotFound("no such slot"), HostError("closed")])
def test_wait_that_fails(error: HostError) -> None:
    """C36: an error that is not the host's death is not mistaken for it."""
    connection = Connection()
    connection.answer = error
    with pytest.raises(type(error)):
        make(connection).wait_for_startup()


def test_terminate() -> None:
    """C35: terminate() asks for this registration and nobody else's, and says how things stand."""
    connection = Connection()
    connection.answer = {"handle": "3.2"}
    assert make(connection).terminate() is BgwHandleStatus.STARTED
    assert connection.requests[0][:2] == ("terminate", {"name": "3.2", "by_operator": False})
    connection.record = SlotRecord(2, NO_PID, 0)
    assert make(connection).terminate() is BgwHandleStatus.STOPPED
    connection.answer = HostNotRunning("gone")
    assert make(connection).terminate() is BgwHandleStatus.POSTMASTER_DIED


def test_last_exit() -> None:
    """The last exit has code or signal, time and reason; a dead host takes it along."""
    connection = Connection()
    connection.answer = {"last_exit": {"code": 1, "signal": None, "at": "2026-01-01T00:00:00Z", "reason": "exit 1"}}
    assert make(connection).last_exit() == LastExit(1, None, "2026-01-01T00:00:00Z", "exit 1")
    connection.answer = {"last_exit": None}
    assert make(connection).last_exit() is None
    connection.answer = HostNotRunning("gone")
    with pytest.raises(HostNotRunning):
        make(connection).last_exit()


def test_refusals_pass_through() -> None:
    """An error of the host is the caller's to see."""
    connection = Connection()
    connection.answer = NoFreeSlot("no")
    with pytest.raises(NoFreeSlot):
        make(connection).terminate()


def test_identity() -> None:
    """C33: a handle is slot, generation and connection, and its text is the first two."""
    connection = Connection()
    handle = make(connection)
    assert (str(handle), repr(handle)) == ("3.2", "<BackgroundWorkerHandle 3.2>")
    assert handle == make(connection)
    assert hash(handle) == hash(make(connection))
    assert handle != make(connection, generation=3)
    assert handle != make(Connection())
    assert handle != "3.2"


@pytest.mark.parametrize("kind", [BackgroundWorkerHandle, AsyncBackgroundWorkerHandle])
def test_opaque(kind: type) -> None:
    """C33: a handle can be neither made nor changed by hand, and does not leave its process but as text."""
    with pytest.raises(TypeError, match="no public constructor"):
        kind()
    handle = make(Connection())
    with pytest.raises(AttributeError):
        handle.other = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"str\(handle\)"):
        pickle.dumps(handle)
    with pytest.raises(TypeError):
        copy.copy(handle)
