"""One non-blocking connection in the host's loop: whole messages in, whole messages out.

Used for clients, for workers' channels and for the helper programs. A peer that sends too
much, sends nonsense or does not read costs its own buffer and then its connection, never
the host's time: each turn serves a few messages per connection and reads no further block
before the last one is served, and a peer whose replies pile up is not served until it takes
them.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from bgworker._baggage import Baggage
from bgworker._control.protocol import Decoder, Message, decode, encode, refusal
from bgworker._loop import Loop
from bgworker.errors import ProtocolError

_RECEIVE_BYTES: Final = 65_536
#: Unsent bytes above which a peer is not read from: its requests wait in the kernel, and then in the peer.
_PAUSE_BYTES: Final = 1_048_576
#: Messages of one peer that are served before the others get their turn.
_MESSAGES_PER_TURN: Final = 100
#: Blocks that are read of a peer that has exited: more than a socket holds. A stray child of it may write for ever.
_BLOCKS_OF_LAST_WORDS: Final = 32
#: Unsent bytes above which a peer is given up: it subscribed to events and stopped reading.
_GIVE_UP_BYTES: Final = 16 * 1_048_576


def socket_of(carried: Mapping[str, Any], baggage: Baggage) -> socket.socket:
    """Return the socket of a connection that ``Connection.carry`` has told of; any one in place of one that had been closed."""
    fd = carried["fd"]
    return socket.socket(socket.AF_UNIX) if fd is None else socket.socket(fileno=baggage.unpack(fd))


class Connection:
    """A stream of messages over a connected socket.

    Args:
        loop: The host's loop.
        peer: The socket, owned by the connection from now on.
        on_message: Called with each message.
        on_close: Called once when the connection has ended, whoever ended it, with a reason.
        limit: Longest line that the peer may send, in bytes.
        on_malformed: Called with what is wrong with a line that is no message; without it the peer is told.
        carried: What another connection over the same socket had not done yet; from its ``carry``.
        baggage: Holds the descriptors among that.
    """

    def __init__(
        self,
        loop: Loop,
        peer: socket.socket,
        on_message: Callable[[Message], None],
        on_close: Callable[[str], None],
        *,
        limit: int,
        on_malformed: Callable[[str], None] | None = None,
        carried: Mapping[str, Any] | None = None,
        baggage: Baggage | None = None,
    ) -> None:
        peer.setblocking(False)
        self._loop = loop
        self._socket = peer
        self._on_message = on_message
        self._on_close = on_close
        self._on_malformed = on_malformed
        self._decoder = Decoder(limit)
        #: Unsent pieces; descriptors travel with the first byte of their piece.
        self._unsent: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        #: Descriptors in them that are closed once they have left.
        self._owned: set[int] = set()
        self._unsent_bytes = 0
        #: Lines that have been read and not yet served.
        self._unserved: deque[bytes] = deque()
        self._is_put_off = False
        self._is_postponed = False
        self._events = selectors.EVENT_READ
        self.is_open = True
        #: The peer has ended without reading all that was sent to it, as far as the kernel tells (Linux: unix(7)).
        self.is_unread = False
        #: How many messages were queued for it.
        self.messages_sent = 0
        #: Called when everything that was queued has left; may send.
        self.when_flushed: Callable[[], None] | None = None
        #: The peer has exited: it is heard to its end, and nothing is sent any more.
        self._is_draining = False
        loop.add(peer, self._events, self._ready)
        if carried is not None and baggage is not None:
            self._resume(carried, baggage)

    def carry(self, baggage: Baggage) -> dict[str, Any]:
        """Return what the same host needs to go on with the connection, half a line included, after it has executed itself anew.

        Of one that has ended ``fd`` is None.
        """
        return {
            "fd": baggage.pack(self._socket.fileno()) if self.is_open else None,
            "rest": self._decoder.rest.decode("latin-1"),
            "unserved": [line.decode("latin-1") for line in self._unserved],
            "unsent": [[bytes(data).decode("latin-1"), list(fds)] for data, fds in self._unsent],
            # Shared descriptors in it are other rooms' to carry.
            "owned": [baggage.pack(fd) for fd in sorted(self._owned)],
            "is_unread": self.is_unread,
            "messages_sent": self.messages_sent,
        }

    def _resume(self, carried: Mapping[str, Any], baggage: Baggage) -> None:
        self._decoder.feed(carried["rest"].encode("latin-1"))
        self._unserved.extend(line.encode("latin-1") for line in carried["unserved"])
        for text, fds in carried["unsent"]:
            self._unsent.append((memoryview(text.encode("latin-1")), tuple(fds)))
            self._unsent_bytes += len(text)
        self._owned = {baggage.unpack(fd) for fd in carried["owned"]}
        self.is_unread, self.messages_sent = bool(carried["is_unread"]), int(carried["messages_sent"])
        if carried["fd"] is None:
            self._loop.remove(self._socket)
            self._socket.close()
            self.is_open = False
        else:
            self._watch()

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send one message now or as soon as the peer takes it. The descriptors must stay open until it has left."""
        if not self.is_open:
            return
        self._push(encode({**message, "fds": len(fds)} if fds else message), fds)

    def send_later(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send one message when the turn's work is done, with others of its kind; in order with whatever else is sent.

        To send wakes the peer, which then takes a processor from those whom somebody is waiting for.
        """
        if not self.is_open:
            return
        self._queue(encode({**message, "fds": len(fds)} if fds else message), fds)
        if not self._is_postponed:
            self._is_postponed = True
            self._loop.before_waiting(self._flush_postponed)

    def hand_over(self, message: Message, fd: int) -> None:
        """Send one message with a descriptor that is the connection's from now on, and closed when it has left."""
        if not self.is_open or self._is_draining:
            os.close(fd)
            return
        self._owned.add(fd)
        self.send(message, (fd,))

    def send_line(self, line: bytes) -> None:
        """Send a message that is encoded already, newline included."""
        if self.is_open:
            self._push(line, ())

    def fileno(self) -> int:
        """Return the descriptor; -1 once it has ended."""
        return self._socket.fileno()

    @property
    def is_flushed(self) -> bool:
        """Whether everything sent has left the host."""
        return not self._unsent

    @property
    def unsent_bytes(self) -> int:
        """How much is queued because the peer does not read it."""
        return self._unsent_bytes

    def _push(self, data: bytes, fds: Sequence[int]) -> None:
        self._queue(data, fds)
        self._flush()
        self._give_up_if_unread()

    def _queue(self, data: bytes, fds: Sequence[int]) -> None:
        if self._is_draining:
            return
        self.messages_sent += 1
        self._unsent.append((memoryview(data), tuple(fds)))
        self._unsent_bytes += len(data)

    def _give_up_if_unread(self) -> None:
        if self._unsent_bytes > _GIVE_UP_BYTES:
            self.close("the peer does not read what it asked for")

    def _flush_postponed(self) -> None:
        self._is_postponed = False
        if not self.is_open:
            return
        # A peer that is behind is waited for already: joining what it has left would copy all of it in each turn.
        if not self._events & selectors.EVENT_WRITE:
            self._join_unsent()
            self._flush()
        self._give_up_if_unread()

    def _join_unsent(self) -> None:
        """Make one piece of neighbours without descriptors: one system call, and the peer wakes once."""
        pieces, self._unsent = self._unsent, deque()
        for fds, group in groupby(pieces, lambda piece: piece[1]):
            if fds:
                self._unsent.extend(group)
            else:
                self._unsent.append((memoryview(b"".join(data for data, _fds in group)), ()))

    def _flush(self) -> None:
        while self._unsent:
            data, fds = self._unsent[0]
            try:
                sent = socket.send_fds(self._socket, [data], list(fds)) if fds else self._socket.send(data)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self.is_unread = error.errno in (errno.EPIPE, errno.ECONNRESET)
                # ETOOMANYREFS among them: a socket that is writable and takes nothing would be waited on in a spin.
                what = "too many descriptors are on their way" if error.errno == errno.ETOOMANYREFS else error.strerror
                self.close(f"connection lost: {what}")
                return
            self._unsent_bytes -= sent
            self._close_owned(fds)
            if sent < len(data):
                self._unsent[0] = (data[sent:], ())
                break
            self._unsent.popleft()
        if not self._unsent and self.when_flushed is not None:
            call, self.when_flushed = self.when_flushed, None
            call()
        self._watch()

    def _close_owned(self, fds: Sequence[int]) -> None:
        for fd in self._owned.intersection(fds):
            self._owned.discard(fd)
            os.close(fd)

    def _watch(self) -> None:
        if not self.is_open:
            return
        events = selectors.EVENT_WRITE if self._unsent else 0
        if self._unsent_bytes < _PAUSE_BYTES:
            if not self._unserved:
                events |= selectors.EVENT_READ
            elif not self._is_put_off:
                self._is_put_off = True
                self._loop.soon(self._go_on)
        if events == self._events:
            return
        # Without an event to wait for it is taken out: the kernel reports a hang-up even to those who ask for nothing.
        if not events:
            self._loop.remove(self._socket)
        elif not self._events:
            self._loop.add(self._socket, events, self._ready)
        else:
            self._loop.change(self._socket, events, self._ready)
        self._events = events

    def _go_on(self) -> None:
        self._is_put_off = False
        if self.is_open and self._unsent_bytes < _PAUSE_BYTES:
            self._serve()
            self._watch()

    def _ready(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush()
        if events & selectors.EVENT_READ and self.is_open:
            self._receive()
            self._watch()

    def _receive(self) -> bool:
        """Read one block and serve its first messages; return whether there may be more."""
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self.is_unread = error.errno == errno.ECONNRESET
            self.close(f"connection lost: {error.strerror}")
            return False
        if not data:
            self.close("the peer closed the connection")
            return False
        try:
            self._unserved.extend(self._decoder.feed(data))
        except ProtocolError as error:
            self.send(refusal(None, error))
            self.close(error.message_primary)
            return False
        self._serve()
        return self.is_open

    def _serve(self, limit: int = _MESSAGES_PER_TURN) -> None:
        for served in range(limit):
            # One message of everybody who has sent some, whatever time it is; more of them only while the turn is young.
            if served and not self._is_draining and self._loop.is_late:
                return
            if not self._unserved or not self.is_open or (self._unsent_bytes >= _PAUSE_BYTES and not self._is_draining):
                return
            line = self._unserved.popleft()
            try:
                message = decode(line)
            except ProtocolError as error:
                if self._on_malformed is None:
                    self.send(refusal(None, error))
                else:
                    self._on_malformed(error.message_primary)
                continue
            self._on_message(message)

    def drain(self) -> None:
        """Serve everything that has already arrived; for a peer that has exited, whose last words count."""
        self._is_draining = True
        for _ in range(_BLOCKS_OF_LAST_WORDS):
            self._serve(len(self._unserved))
            if not self.is_open or not self._receive():
                return

    def close(self, reason: str = "closed by the host") -> None:
        """End the connection; what is unsent is dropped."""
        if not self.is_open:
            return
        self.is_open = False
        if self._events:
            self._loop.remove(self._socket)
        self._socket.close()
        self._close_owned(tuple(self._owned))
        self._unsent.clear()
        self._unserved.clear()
        self._on_close(reason)
