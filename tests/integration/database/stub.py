"""A peer that speaks as much of PostgreSQL's protocol as it takes to seem to be a server of any version, or to refuse.

For what no real server at hand does: an old version, and the moments of starting up and shutting down.
"""

from __future__ import annotations

import socket
import struct
import threading
from types import TracebackType
from typing import Self


class StubServer:
    """Listens on a port of 127.0.0.1, each connection in a thread of its own."""

    def __init__(self, version: str, number: int) -> None:
        #: What server_version and server_version_num say to every new connection.
        self.release = (version, number)
        #: SQLSTATE and message that every new connection is refused with; None lets it in.
        self.refusal: tuple[str, str] | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, name="stub")]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # shutdown() before close(): it wakes the accept() and the recv() of the threads.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        self.disconnect_all()
        for thread in self._threads[1:]:
            thread.join()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"postgresql://me@127.0.0.1:{self.port}/x?sslmode=disable&gssencmode=disable"

    def disconnect_all(self) -> None:
        """Close every connection, as a restart does."""
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the client was faster

    def _accept(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,), name="stub"))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rwb") as stream:
                (length,) = struct.unpack("!i", stream.read(4))
                stream.read(length - 4)
                version, number = self.release
                if self.refusal is not None:
                    state, message = self.refusal
                    fields = b"".join(
                        key + value.encode() + b"\0"
                        for key, value in ((b"S", "FATAL"), (b"V", "FATAL"), (b"C", state), (b"M", message))
                    )
                    stream.write(_message(b"E", fields + b"\0"))
                    stream.flush()
                    return
                stream.write(_message(b"R", struct.pack("!i", 0)))
                for name, value in (("server_version", version), ("client_encoding", "UTF8")):
                    stream.write(_message(b"S", f"{name}\0{value}\0".encode()))
                stream.write(_message(b"K", struct.pack("!ii", 4711, 1)) + _message(b"Z", b"I"))
                stream.flush()
                while stream.read(1) == b"Q":
                    (length,) = struct.unpack("!i", stream.read(4))
                    recovery = b"pg_is_in_recovery" in stream.read(length - 4)
                    stream.write(_rows(["f"] if recovery else ["4711", str(number), version]) + _message(b"Z", b"I"))
                    stream.flush()
        except (OSError, struct.error):
            pass  # the client has gone, or disconnect_all() was called


def _rows(values: list[str]) -> bytes:
    """Return the answer to a query: one row of text."""
    columns = b"".join(b"c\0" + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0) for _ in values)
    row = b"".join(struct.pack("!i", len(value)) + value.encode() for value in values)
    count = struct.pack("!h", len(values))
    return _message(b"T", count + columns) + _message(b"D", count + row) + _message(b"C", b"SELECT 1\0")


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body
