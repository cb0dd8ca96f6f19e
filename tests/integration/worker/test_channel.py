"""The worker's end of its channel, against a socket that the test holds the other end of."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.integration.worker.driving import DEADLINE

from bgworker._control.protocol import Decoder, Message, decode, encode
from bgworker._worker.channel import Channel
from bgworker._worker.interrupts import Interrupts
from bgworker._worker.latch import Latch
from bgworker._worker.slot_view import SlotView
from bgworker.errors import HostNotRunning, NoFreeSlot, ProtocolError, WaitTimeout


class Ends:
    """Both ends of one channel."""

    def __init__(self) -> None:
        self.host, theirs = socket.socketpair()
        self.host.settimeout(DEADLINE)
        self.lifeline_fd, self.lifeline_end = os.pipe()
        self.latch = Latch()
        self.channel = Channel(theirs.detach(), self.lifeline_fd, self.latch, Interrupts(self.latch), SlotView(-1))
        self._decoder = Decoder()
        self._arrived: list[Message] = []

    def receive(self) -> Message:
        """Return the worker's next message."""
        while not self._arrived:
            self._arrived += [decode(line) for line in self._decoder.feed(self.host.recv(65536))]
        return self._arrived.pop(0)

    def send(self, *messages: Message) -> None:
        """Send messages in one piece."""
        self.host.sendall(b"".join(map(encode, messages)))

    def die(self) -> None:
        """Die as the host."""
        os.close(self.lifeline_end)
        self.lifeline_end = -1

    def close(self) -> None:
        """Close everything."""
        self.channel.close()
        self.host.close()
        self.latch.close()
        for fd in (self.lifeline_fd, self.lifeline_end):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.close()


def nothing() -> None:
    """Wake nobody."""


def test_replies_come_in_any_order(ends: Ends) -> None:
    """C36: each reply reaches its own request, whatever the order, with pushes in between."""
    first, second = ends.channel.begin("a", {}, nothing), ends.channel.begin("b", {"x": 1}, nothing)
    requests = [ends.receive(), ends.receive()]
    assert [r["method"] for r in requests] == ["a", "b"]
    ends.send(
        {"id": requests[1]["id"], "result": {"n": 2}},
        {"type": "notify", "channel": "c", "payload": "p"},
        {"id": requests[0]["id"], "error": NoFreeSlot("full", "detail", "hint").to_dict()},
    )
    ends.channel.receive()
    assert second.result() == {"n": 2}
    with pytest.raises(NoFreeSlot, match="full"):
        first.result()
    assert ends.latch.is_set
    assert [n.payload for n in ends.channel.notifications.take()] == ["p"]


def test_abandoned_and_unknown_replies_are_dropped(ends: Ends) -> None:
    """A reply nobody waits for does no harm."""
    reply = ends.channel.begin("a", {}, nothing)
    request = ends.receive()
    ends.channel.abandon(reply)
    ends.send({"id": request["id"], "result": {}}, {"id": 999, "result": {}}, {"id": "odd", "result": {}}, {"id": None})
    ends.channel.receive()
    assert not reply.is_done
    assert ends.channel.is_host_alive()


def test_requests_of_threads_do_not_wait_for_each_other(ends: Ends) -> None:
    """C36: a thread that waits long holds up neither another thread nor the main one, whoever reads the replies."""
    results: dict[str, Any] = {}

    def ask(method: str) -> None:
        results[method] = ends.channel.request(method)

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("slow", "b", "c")]
    for thread in threads:
        thread.start()
    requests = {}
    for _ in threads:
        request = ends.receive()
        requests[request["method"]] = request["id"]
    ends.send({"id": requests["b"], "result": {"n": "b"}}, {"id": requests["c"], "result": {"n": "c"}})
    threads[1].join(DEADLINE)
    threads[2].join(DEADLINE)
    answer = threading.Thread(target=lambda: ends.send({"id": ends.receive()["id"], "result": {"n": "main"}}))
    answer.start()
    assert ends.channel.request("main") == {"n": "main"}
    answer.join()
    assert results == {"b": {"n": "b"}, "c": {"n": "c"}}
    ends.send({"id": requests["slow"], "result": {"n": "slow"}})
    threads[0].join(DEADLINE)
    assert results["slow"] == {"n": "slow"}


@pytest.mark.parametrize("in_thread", [False, True])
def test_own_timeout(ends: Ends, in_thread: bool) -> None:
    """C36: a request gives up at its own timeout with WaitTimeout; the channel goes on."""
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            ends.channel.request("never", timeout=0.05)
        except WaitTimeout as error:
            caught.append(error)

    if in_thread:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(DEADLINE)
    else:
        ask()
    assert len(caught) == 1
    assert ends.channel.is_host_alive()


@pytest.mark.parametrize("how", ["lifeline", "channel", "nonsense"])
def test_lost_host_fails_everything(ends: Ends, how: str) -> None:
    """C34: when the host has gone, waiting requests fail, later ones too, and is_host_alive() is false."""
    waiting = ends.channel.begin("wait", {}, nothing)
    match how:
        case "lifeline":
            ends.die()
        case "channel":
            ends.host.close()
        case "nonsense":
            ends.host.sendall(b"{not json\n")
    with pytest.raises(HostNotRunning):
        ends.channel.request("next")
    with pytest.raises(HostNotRunning):
        waiting.result()
    assert not ends.channel.is_host_alive()
    assert ends.channel.fileno() == -1
    with pytest.raises(HostNotRunning):
        ends.channel.begin("later", {}, nothing)


def test_death_is_seen_without_a_request(ends: Ends) -> None:
    """C34: is_host_alive() looks at the lifeline itself."""
    assert ends.channel.is_host_alive()
    ends.die()
    assert not ends.channel.is_host_alive()


def test_last_words_of_a_dead_host_count(ends: Ends) -> None:
    """C37: a reply that the host sent before it died is still its answer."""

    def answer_and_die() -> None:
        ends.send({"id": ends.receive()["id"], "result": {"n": 1}})
        ends.die()

    thread = threading.Thread(target=answer_and_die)
    thread.start()
    assert ends.channel.request("a") == {"n": 1}
    thread.join()


def test_more_than_the_socket_takes(ends: Ends) -> None:
    """C11: messages larger than the socket's buffer arrive whole, both ways."""
    text = "x" * 3_000_000

    def answer() -> None:
        request = ends.receive()
        ends.send({"id": request["id"], "result": {"text": request["params"]["text"]}})

    thread = threading.Thread(target=answer)
    thread.start()
    assert ends.channel.request("echo", {"text": text}) == {"text": text}
    thread.join()


def test_what_json_cannot_say_is_the_callers_error(ends: Ends) -> None:
    """C11: a parameter that is no JSON is refused before anything is sent."""
    with pytest.raises(ProtocolError):
        ends.channel.begin("a", {"x": object()}, nothing)
    reply = ends.channel.begin("b", {}, nothing)
    assert ends.receive()["method"] == "b"
    ends.channel.abandon(reply)


def test_events_for_the_launcher(ends: Ends) -> None:
    """C03: after the subscription each event sets the latch and is taken once, in order."""
    thread = threading.Thread(target=lambda: ends.send({"id": ends.receive()["id"], "result": {}}))
    thread.start()
    ends.channel.subscribe_events()
    thread.join()
    ends.latch.reset()
    ends.send({"event": "started", "slot": 1}, {"event": "exited", "slot": 1})
    assert [event["event"] for event in ends.channel.take_events()] == ["started", "exited"]
    assert ends.latch.is_set
    assert ends.channel.take_events() == []


def test_early_pushes_wait_for_the_assignment(ends: Ends) -> None:
    """C10: what the host sends right behind the assignment is not lost with it."""
    ends.send({"type": "assign", "slot": 3}, {"type": "notify", "channel": "c", "payload": "early"})
    assignment = ends.channel.await_assignment()
    assert assignment is not None
    assert assignment["slot"] == 3
    assert [n.payload for n in ends.channel.notifications.take()] == ["early"]
