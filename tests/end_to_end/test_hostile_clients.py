"""What a client may send, and what it costs: an error, or its own connection."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator

import pytest

from bgworker.errors import HostError
from bgworker.testing import RunningHost


@pytest.fixture
def peer(host: RunningHost) -> Iterator[socket.socket]:
    """Return a raw connection that has read its greeting."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(str(host.data_directory / "run" / "control.sock"))
    _data, fds, _flags, _address = socket.recv_fds(connection, 4096, 4)
    assert len(fds) == 2
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(fd, b"x", 0)
        os.close(fd)
    yield connection
    connection.close()


NONSENSE = [
    b"\n",
    b"\xff\xfe\n",
    b"[]\n",
    b"{\n",
    b"[" * 30_000 + b"\n",
    b'{"id":1,"id":2}\n',
    b'{"id":NaN}\n',
    b'{"id":' + b"9" * 5000 + b"}\n",
    b'{"id":null,"method":"ping"}\n',
    b'{"id":1,"method":"__class__"}\n',
    b'{"id":1,"method":7}\n',
    b'{"id":1,"method":"ping","params":[]}\n',
    b'{"id":1,"method":"register"}\n',
    b'{"id":1,"method":"register","params":{"worker":{"bgw_name":"\\ud800"}}}\n',
    b'{"id":1,"method":"register","params":{"worker":{"bgw_name":"x","bgw_flags":[1]}}}\n',
    b'{"id":1,"method":"wait","params":{"handle":"99999.1","for":"startup"}}\n',
    b'{"id":1,"method":"wait","params":{"handle":"0.1","for":"lunch"}}\n',
    b'{"id":1,"method":"terminate","params":{"name":"\xc2\xb2.1"}}\n',
    b'{"id":1,"method":"signal","params":{"name":"x","signal":"KILL;"}}\n',
    b'{"id":1,"method":"settings"}\n',
    b'{"id":1,"method":"ready_done","params":{"plugin":"x"}}\n',
]


@pytest.mark.parametrize("line", NONSENSE, ids=range(len(NONSENSE)))
def test_nonsense_gets_an_error(host: RunningHost, peer: socket.socket, line: bytes) -> None:
    """T46: every malformed request is answered with an error, and the connection goes on."""
    peer.sendall(line)
    with peer.makefile() as lines:
        answer = json.loads(lines.readline())
        assert answer["error"]["message_primary"]
        peer.sendall(b'{"id":2,"method":"ping"}\n')
        assert json.loads(lines.readline()) == {"id": 2, "result": {}}


def test_endless_line_ends_its_connection_only(host: RunningHost, peer: socket.socket) -> None:
    """T44: a line without an end is cut off at the limit; others are served."""
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        peer.sendall(b"x" * 65_536_000)
    assert host.status()["host"]["state"] == "run"


def test_peer_that_does_not_read_is_not_served_further(host: RunningHost, peer: socket.socket) -> None:
    """A client that asks and never reads fills its own buffers; an honest one is served meanwhile."""
    peer.setblocking(False)
    request = b'{"id":1,"method":"status"}\n' * 1000
    sent = 0
    try:
        while sent < 50_000_000:
            sent += peer.send(request)
    except BlockingIOError:
        pass
    assert sent < 50_000_000
    assert host.status()["host"]["state"] == "run"


def test_connections_above_the_limit_are_refused_politely(host: RunningHost) -> None:
    """T48: the connection too many gets an error line; those before it stay."""
    path = str(host.data_directory / "run" / "control.sock")
    connections = []
    refused = 0
    for _ in range(300):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        connection.connect(path)
        connections.append(connection)
    for connection in connections:
        data, fds, _flags, _address = socket.recv_fds(connection, 4096, 4)
        for fd in fds:
            os.close(fd)
        refused += b"too many connections" in data
    assert 0 < refused < 100
    for connection in connections:
        connection.close()

    def is_served_again() -> bool:
        try:
            return bool(host.status()["host"]["state"] == "run")
        except HostError:  # refused: the host has not read all the ends yet
            return False

    host.wait_until(is_served_again, "the ended connections have made room")
