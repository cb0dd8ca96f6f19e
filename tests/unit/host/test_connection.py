"""A connection in the host's loop: what a peer has said counts to the end, and what cannot be sent costs the connection."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bgworker._control import connection
from bgworker._control.connection import Connection
from bgworker._control.protocol import MAX_REQUEST_BYTES, Message, encode
from bgworker._loop import Loop


class Ends:
    """Both ends of one connection, and what arrived at the host's."""

    def __init__(self, kind: socket.SocketKind = socket.SOCK_STREAM) -> None:
        self.loop = Loop(())
        ours, self.peer = socket.socketpair(socket.AF_UNIX, kind)
        self.messages: list[Message] = []
        self.reasons: list[str] = []
        self.on_message: Callable[[Message], Any] = self.messages.append
        self.connection = Connection(
            self.loop, ours, lambda message: self.on_message(message), self.reasons.append, limit=MAX_REQUEST_BYTES
        )


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.connection.close()
    ends.peer.close()
    ends.loop.close()


def test_last_words_count_although_an_answer_cannot_be_sent(ends: Ends) -> None:
    """A worker that asks, says why it goes, and goes: the answer finds nobody, the words are heard."""

    def serve(message: Message) -> None:
        ends.messages.append(message)
        ends.connection.send({"id": 1, "result": {}})

    ends.on_message = serve
    ends.peer.sendall(encode({"id": 1, "method": "ping"}) + encode({"type": "exiting", "error": "why"}))
    ends.peer.close()
    ends.connection.drain()
    assert [message.get("type") for message in ends.messages] == [None, "exiting"]


def test_last_words_of_any_number_are_heard(ends: Ends) -> None:
    """More messages than one turn serves are all heard when the peer has exited."""
    ends.peer.sendall(b"".join(encode({"id": number}) for number in range(500)))
    ends.peer.close()
    ends.connection.drain()
    assert [message["id"] for message in ends.messages] == list(range(500))
    assert not ends.connection.is_open


def test_one_turn_serves_a_part_and_the_next_ones_the_rest(ends: Ends) -> None:
    """A block of many messages is spread over turns, in order, without anything further arriving."""
    ends.peer.sendall(b"".join(encode({"id": number}) for number in range(1000)))
    turns = 0
    while len(ends.messages) < 1000:
        before = len(ends.messages)
        ends.loop.turn(None)
        turns += 1
        assert 0 < len(ends.messages) - before < 500
    assert turns > 2
    assert [message["id"] for message in ends.messages] == list(range(1000))


def test_descriptors_that_cannot_be_sent_end_the_connection(ends: Ends) -> None:
    """A peer that takes nothing any more is closed, not waited for in a spin."""
    ends.peer.shutdown(socket.SHUT_RD)
    ends.connection.send({"hello": 1}, [0])
    assert not ends.connection.is_open
    assert len(ends.reasons) == 1


def test_stray_that_writes_for_ever_does_not_hold_the_host(ends: Ends) -> None:
    """Draining the channel of an exited worker ends, even if a child it left behind goes on writing."""
    ends.peer.setblocking(False)
    line = encode({"id": 1}) * 1000

    def write_on(message: Message) -> None:
        ends.messages.append(message)
        try:
            ends.peer.send(line)
        except BlockingIOError:
            pass

    ends.on_message = write_on
    ends.peer.send(line)
    ends.connection.drain()
    assert len(ends.messages) < 500_000


def test_descriptors_arrive_with_their_message(ends: Ends) -> None:
    """What is sent with a message is received with it."""
    ends.connection.send({"a": 1}, [0, 1])
    data, fds, _flags, _address = socket.recv_fds(ends.peer, 4096, 4)
    assert len(fds) == 2
    assert b'"fds":2' in data
    for fd in fds:
        os.close(fd)


def test_handed_over_descriptor_is_closed_when_it_has_left(ends: Ends) -> None:
    """A descriptor that the connection was given arrives, and stays open no longer than that: at once, late, or not at all."""
    given = os.memfd_create("given")
    try:
        first = os.dup(given)
        ends.connection.hand_over({"id": 1}, first)
        assert not is_open(first)
        data, fds, _flags, _address = socket.recv_fds(ends.peer, 4096, 4)
        assert (len(fds), os.fstat(fds[0]).st_ino) == (1, os.fstat(given).st_ino)
        assert data.endswith(b'"fds":1}\n')
        os.close(fds[0])
        while ends.connection.is_flushed:
            ends.connection.send({"text": "x" * 10_000})
        late = os.dup(given)
        ends.connection.hand_over({"id": 2}, late)
        assert is_open(late)
        ends.connection.close()
        assert not is_open(late)
        never = os.dup(given)
        ends.connection.hand_over({"id": 3}, never)
        assert not is_open(never)
    finally:
        os.close(given)


def is_open(fd: int) -> bool:
    """Whether the number is a descriptor of this process."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def received(ends: Ends) -> list[int]:
    """Return the descriptors that have arrived at the peer."""
    ends.peer.settimeout(5)
    _data, fds, _flags, _address = socket.recv_fds(ends.peer, 65_536, 8)
    return fds


def is_closed(fd: int) -> bool:
    """Whether the number is free."""
    try:
        os.fstat(fd)
    except OSError:
        return True
    return False


def some_fd() -> int:
    """Return a descriptor to hand over."""
    return os.open(os.devnull, os.O_RDONLY)


def test_descriptor_is_handed_over_and_closed(ends: Ends) -> None:
    """C31: what is handed over arrives, and the host keeps no copy of it; what is merely sent stays the sender's."""
    given, lent = some_fd(), some_fd()
    ends.connection.hand_over({"id": 1}, given)
    ends.connection.send({"id": 2}, (lent,))
    assert is_closed(given)
    assert not is_closed(lent)
    for fd in (*received(ends), *received(ends), lent):
        os.close(fd)


def test_descriptor_waits_for_a_slow_peer(ends: Ends) -> None:
    """C31: it is the connection's until the peer takes it, goes with its own message, and is closed then."""
    given = some_fd()
    filling = {"id": 0, "text": "x" * 50_000}
    while ends.connection.is_flushed:
        ends.connection.send(filling)
    ends.connection.hand_over({"id": 1}, given)
    assert not is_closed(given)
    ends.peer.settimeout(5)
    data, fds = b"", []
    while b'"id":1' not in data:
        piece, came, _flags, _address = socket.recv_fds(ends.peer, 65_536, 8)
        data, fds = data[-100:] + piece, [*fds, *came]
        ends.loop.turn(0.0)
    assert len(fds) == 1
    os.close(fds[0])
    assert is_closed(given)


@pytest.mark.parametrize("how", ["closed while it waits", "closed before", "drained before", "peer gone", "given up"])
def test_descriptor_is_closed_with_the_connection(ends: Ends, how: str) -> None:
    """C31: a worker that crashes before it takes its memory leaves no descriptor with the host."""
    given = some_fd()
    match how:
        case "closed while it waits" | "given up":
            while ends.connection.is_flushed:
                ends.connection.send({"id": 0, "text": "x" * 50_000})
            ends.connection.hand_over({"id": 1}, given)
            assert not is_closed(given)
            if how == "given up":
                while ends.connection.is_open:
                    ends.connection.send({"id": 0, "text": "x" * 8_000_000})
            else:
                ends.connection.close()
        case "closed before":
            ends.connection.close()
            ends.connection.hand_over({"id": 1}, given)
        case "drained before":
            ends.peer.close()
            ends.connection.drain()
            ends.connection.hand_over({"id": 1}, given)
        case _:
            ends.peer.close()
            ends.connection.hand_over({"id": 1}, given)
    assert is_closed(given)


@pytest.fixture
def pieces() -> Iterator[Ends]:
    """The same over a socket that keeps apart what was sent apart."""
    ends = Ends(socket.SOCK_SEQPACKET)
    ends.peer.setblocking(False)
    yield ends
    ends.connection.close()
    ends.peer.close()
    ends.loop.close()


def test_what_is_sent_later_leaves_when_the_turn_is_done(pieces: Ends) -> None:
    """Nothing leaves before; then everything does as one piece, and what is sent meanwhile at once keeps its place."""
    for number in (1, 2):
        pieces.connection.send_later({"id": number})
    with pytest.raises(BlockingIOError):
        pieces.peer.recv(65536)
    pieces.loop.turn(0)
    assert pieces.peer.recv(65536) == encode({"id": 1}) + encode({"id": 2})
    pieces.connection.send_later({"id": 3})
    pieces.connection.send({"id": 4})
    assert [pieces.peer.recv(65536) for _ in range(2)] == [encode({"id": 3}), encode({"id": 4})]
    pieces.loop.turn(0)
    with pytest.raises(BlockingIOError):
        pieces.peer.recv(65536)


def test_descriptors_sent_later_keep_to_their_message(pieces: Ends) -> None:
    """A message with descriptors is joined with no other: the receiver takes them with the first byte of theirs."""
    read_fd, write_fd = os.pipe()
    for number in (1, 2):
        pieces.connection.send_later({"id": number})
    pieces.connection.send_later({"id": 3}, (write_fd,))
    pieces.connection.send_later({"id": 4})
    pieces.loop.turn(0)
    assert pieces.connection.is_flushed
    got = [socket.recv_fds(pieces.peer, 65536, 4)[:2] for _ in range(3)]
    assert [data for data, _fds in got] == [
        encode({"id": 1}) + encode({"id": 2}),
        encode({"id": 3, "fds": 1}),
        encode({"id": 4}),
    ]
    assert [len(fds) for _data, fds in got] == [0, 1, 0]
    for fd in (read_fd, write_fd, *got[1][1]):
        os.close(fd)


def test_sent_later_to_a_peer_that_is_gone_is_no_error(ends: Ends) -> None:
    """The peer leaves between the message and the end of the turn: the connection ends, once, with the reason."""
    ends.connection.send_later({"id": 1})
    ends.peer.close()
    ends.loop.turn(0)
    ends.loop.turn(0)
    assert not ends.connection.is_open
    assert len(ends.reasons) == 1
    ends.connection.send_later({"id": 2})
    ends.loop.turn(0)


def test_peer_that_is_behind_is_not_copied_for(ends: Ends) -> None:
    """What is sent later to a peer that does not read is kept as it is: joining it in each turn would copy all of it again."""
    kept = None
    for number in range(8):
        ends.connection.send_later({"id": number, "text": "x" * 200_000})
        ends.loop.turn(0.0)
        first = ends.connection._unsent[-1][0].obj if ends.connection._unsent else None
        if number == 6:
            kept = first
    assert kept is not None
    assert any(data.obj is kept for data, _fds in ends.connection._unsent)
    assert [message["id"] for message in read_by(ends, 8)] == list(range(8))


def test_limit_is_for_what_the_peer_leaves(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that is over the limit as a whole, and mostly taken at once, does not cost the connection."""
    monkeypatch.setattr(connection, "_GIVE_UP_BYTES", 1000)
    ends.connection.send({"text": "x" * 2000})
    assert ends.connection.is_open
    ends.connection.send_later({"text": "x" * 2000})
    ends.loop.turn(0.0)
    assert ends.connection.is_open
    for _ in range(1000):
        ends.connection.send({"text": "x" * 2000})
    assert ends.reasons == ["the peer does not read what it asked for"]


def read_by(ends: Ends, count: int) -> list[Message]:
    """Return so many messages as the peer reads them while the loop turns."""
    data = b""
    ends.peer.setblocking(False)
    deadline = time.monotonic() + 30.0
    while data.count(b"\n") < count and time.monotonic() < deadline:
        ends.loop.turn(0.0)
        try:
            data += ends.peer.recv(1 << 20)
        except BlockingIOError:
            pass
    return [json.loads(line) for line in data.splitlines()]
