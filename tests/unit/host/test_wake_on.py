"""Routing of notifications by database and channel, and what is bounded."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from bgworker._control.connection import Connection
from bgworker._control.protocol import Decoder, decode
from bgworker._core.slots import SlotMachine
from bgworker._core.states import Origin
from bgworker._host.births import Life, WorkerProcess
from bgworker._host.wake_on import MAX_QUEUED_BYTES, WakeUps
from bgworker._loop import Loop
from bgworker._spec import BackgroundWorker


class Bench:
    """A machine with registered workers, and processes for them whose channels the test reads."""

    def __init__(self) -> None:
        self.machine = SlotMachine(8, shutdown_timeout=5.0, start_timeout=60.0)
        self.loop = Loop(())
        self.processes: dict[int, WorkerProcess] = {}
        self.wake_ups = WakeUps(self.machine.slots, self.processes)
        self._ends: dict[WorkerProcess, tuple[socket.socket, Decoder]] = {}

    def worker(self, *channels: str) -> WorkerProcess:
        """Register a worker and give it a process."""
        worker = BackgroundWorker(bgw_name="w", bgw_library_name="l", bgw_function_name="f", wake_on=channels)
        slot, _effects = self.machine.register(worker, Origin.DYNAMIC, 0.0)
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        process = WorkerProcess(
            Life(slot.slotno, slot.generation, 1), "exec", slot.registration, ours, [], [], 0.0, pid=100 + slot.slotno
        )
        process.connection = Connection(self.loop, ours, lambda _message: None, lambda _reason: None, limit=65_536)
        self.processes[100 + slot.slotno] = process
        self._ends[process] = (theirs, Decoder())
        self.wake_ups.changed()
        return process

    def read(self, process: WorkerProcess) -> list[dict[str, Any]]:
        """Return what the process finds on its channel, until the host has no more for it."""
        end, decoder = self._ends[process]
        messages: list[dict[str, Any]] = []
        while True:
            try:
                data = end.recv(1_000_000)
            except BlockingIOError:
                connection = process.connection
                assert connection is not None
                if connection.is_flushed:
                    return messages
                connection._ready(selectors.EVENT_WRITE)
            else:
                messages += [decode(line) for line in decoder.feed(data)]

    def close(self) -> None:
        """Close every socket."""
        for process, (end, _decoder) in self._ends.items():
            end.close()
            if process.connection is not None:
                process.connection.close()
        self.loop.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    """An empty machine."""
    made = Bench()
    yield made
    made.close()


def test_channels_are_wanted_where_the_worker_is(bench: Bench) -> None:
    """C27: a worker's channels belong to the database it has connected to; before that, to the configured one."""
    first, second = bench.worker("a", "b"), bench.worker("a")
    bench.worker()
    assert bench.wake_ups.wanted() == {"": ["a", "b"]}
    assert bench.wake_ups.connected(first, "shop")
    assert bench.wake_ups.wanted() == {"": ["a"], "shop": ["a", "b"]}
    assert bench.wake_ups.connected(second, "shop")
    assert bench.wake_ups.wanted() == {"shop": ["a", "b"]}
    del bench.processes[100 + first.life.slotno]
    bench.wake_ups.changed()
    assert bench.wake_ups.wanted() == {"": ["a", "b"], "shop": ["a"]}


@pytest.mark.parametrize("name", [None, 3, "x" * 256, "a\0b"])
def test_nonsense_is_no_database(bench: Bench, name: object) -> None:
    """A worker that names something else than a database changes nothing."""
    process = bench.worker("a")
    assert not bench.wake_ups.connected(process, name)
    assert process.database == ""


def test_notifications_go_by_database_and_channel(bench: Bench) -> None:
    """C27: the same channel in another database is another channel."""
    here, there = bench.worker("a"), bench.worker("a", "b")
    bench.wake_ups.connected(there, "shop")
    bench.wake_ups.notified("", "a", "1")
    bench.wake_ups.notified("shop", "a", "2")
    bench.wake_ups.notified("shop", "c", "nobody's")
    assert [message["payload"] for message in bench.read(here)] == ["1"]
    assert [message["payload"] for message in bench.read(there)] == ["2"]


def test_note_of_a_gap_comes_once_something_is_heard(bench: Bench) -> None:
    """C27: after its connect a worker is told that it may have missed something, once its channels are listened to."""
    first, second = bench.worker("a", "b"), bench.worker("b")
    bench.wake_ups.connected(first, "shop")
    bench.wake_ups.wanted()
    assert bench.read(first) == []
    bench.wake_ups.heard_again("shop", ["a", "b"])
    assert bench.read(first) == [{"type": "gap", "channels": ["a", "b"]}]
    assert bench.read(second) == []
    # Listened to already, on account of the first worker: the note does not wait for anything.
    bench.wake_ups.connected(second, "shop")
    assert bench.read(second) == [{"type": "gap", "channels": ["b"]}]
    assert bench.read(first) == []


def test_deaf_database_gives_no_note_at_connect(bench: Bench) -> None:
    """C27: what is not heard at the moment, or was not wanted in between, is no channel that a note could be given for."""
    first = bench.worker("a")
    bench.wake_ups.heard_again("", ["a"])
    assert bench.read(first) == [{"type": "gap", "channels": ["a"]}]
    bench.wake_ups.deaf("shop")
    bench.wake_ups.connected(first, "")
    assert bench.read(first) == [{"type": "gap", "channels": ["a"]}]
    bench.wake_ups.deaf("")
    bench.wake_ups.connected(first, "")
    assert bench.read(first) == []
    bench.wake_ups.heard_again("", ["a"])
    bench.read(first)
    bench.wake_ups.deaf()
    bench.wake_ups.connected(first, "")
    assert bench.read(first) == []


def test_flood_collapses_into_a_note(bench: Bench) -> None:
    """C27: a worker that does not read costs bounded memory; what it missed is one note for each channel, in its place."""
    busy, idle = bench.worker("a", "b"), bench.worker("b")
    for number in range(10_000):
        bench.wake_ups.notified("", "a", f"{number} " + "x" * 1000)
    bench.wake_ups.notified("", "b", "late")
    bench.wake_ups.heard_again("", ["a"])
    assert busy.connection is not None
    assert MAX_QUEUED_BYTES < busy.connection.unsent_bytes < MAX_QUEUED_BYTES + 2000
    assert bench.read(idle) == [{"type": "notify", "channel": "b", "payload": "late"}]
    messages = bench.read(busy)
    heard = [int(message["payload"].split()[0]) for message in messages[:-1]]
    assert heard == list(range(len(heard)))
    assert messages[-1] == {"type": "gap", "channels": ["a", "b"]}
    bench.wake_ups.notified("", "a", "after")
    assert bench.read(busy) == [{"type": "notify", "channel": "a", "payload": "after"}]
