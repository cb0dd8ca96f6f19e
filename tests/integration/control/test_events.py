"""Events over a connection of their own."""

from __future__ import annotations

import os
import select

import pytest
from tests.integration.control.fake_host import PATIENCE, FakeHost

from bgworker import Client, connect
from bgworker.errors import HostError, HostNotRunning, WaitTimeout


def _event(number: int) -> dict[str, object]:
    return {"event": "started", "slot": number, "message": f"worker {number} started"}


def test_events(host: FakeHost) -> None:
    """events() has subscribed when it returns, gives every event in order, and leaves the client free for requests."""
    with connect(host.data_directory) as client, client.events() as events:
        for number in range(3):
            host.notify(_event(number))
        client.ping()
        assert [next(events)["slot"] for _ in range(3)] == [0, 1, 2]


def test_iteration_ends_with_the_host(host: FakeHost) -> None:
    """Events that came before the host's death are given first, then HostNotRunning."""
    with connect(host.data_directory) as client, client.events() as events:
        host.notify(_event(1))
        host.notify(_event(2))
        host.die()
        seen: list[object] = []
        with pytest.raises(HostNotRunning):
            seen.extend(event["slot"] for event in events)
        assert seen == [1, 2]


def test_timeout(host: FakeHost) -> None:
    """next_event() with a timeout of 0 takes what has arrived and does not wait; descriptors tell when to call it."""
    with connect(host.data_directory) as client, client.events() as events:
        with pytest.raises(WaitTimeout):
            events.next_event(timeout=0)
        with pytest.raises(WaitTimeout):
            events.next_event(timeout=0.01)
        host.notify(_event(1))
        assert select.select([events], [], [], PATIENCE)[0] == [events]
        assert events.next_event(timeout=0)["slot"] == 1


def test_stream_that_the_host_gave_up(host: FakeHost) -> None:
    """A host that closed only the stream of events is not said to have died."""
    with connect(host.data_directory) as client, client.events() as events:
        host.subscribers[0].shutdown(2)
        with pytest.raises(HostError, match="closed the stream of events") as caught:
            next(events)
        assert not isinstance(caught.value, HostNotRunning)
        client.ping()


def test_other_host_in_its_place(host: FakeHost) -> None:
    """events() does not mix the events of a new host with the slots of the old one."""
    with connect(host.data_directory) as client:
        other = Client(client._connection)
        other._connection.greeting = client._connection.greeting._replace(pid=os.getpid() + 1)
        with pytest.raises(HostNotRunning, match="gone"):
            other.events()
