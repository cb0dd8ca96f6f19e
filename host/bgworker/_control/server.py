"""The host's end of the control socket: accepts, checks who is there, says hello.

What the requests mean is not decided here: each whole message of a peer goes to the
composition root. Nothing a peer does blocks: accepting is bounded per turn, and above the
limit of connections a newcomer is refused politely. Without a descriptor left for anybody,
it stops accepting and tries again later.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bgworker._baggage import Baggage
from bgworker._control.connection import Connection, socket_of
from bgworker._control.peers import credentials_of, pidfd_of, supplementary_groups_of
from bgworker._control.protocol import MAX_REQUEST_BYTES, Message, encode, refusal
from bgworker._control.socket_name import SocketName
from bgworker._loop import Loop
from bgworker.errors import HostError, PermissionDenied

#: Connections at once; each costs the host a descriptor and at most one request line.
MAX_CONNECTIONS: Final = 256
#: Of these, kept for the host's user and root: members of the control group cannot shut them out.
RESERVED_CONNECTIONS: Final = 32
_ACCEPTS_PER_TURN: Final = 32
#: Pause after accept() failed, in seconds: the listening socket stays readable, and the loop would spin.
_ACCEPT_PAUSE: Final = 0.5


class ControlServer:
    """Listens in ``run/`` of the data directory.

    Args:
        loop: The host's loop.
        name: The socket's name, bound; the server's from now on.
        on_open: Called with each new peer.
        greeting: The first line that a peer gets, with descriptors.
        admits: Tells by uid, gid and supplementary groups who may connect besides the host's user and root.
        on_names: Called after the name was looked at, for what else has a name beside it.
    """

    def __init__(
        self,
        loop: Loop,
        name: SocketName,
        on_open: Callable[[Peer], object],
        greeting: Callable[[Peer], tuple[Message, Sequence[int]]],
        admits: Callable[[int, int, frozenset[int] | None], bool] = lambda uid, gid, others: False,
        on_names: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = loop
        self._on_open = on_open
        self._greeting = greeting
        self._admits = admits
        self._on_names = on_names
        self.peers: set[Peer] = set()
        self._name = name
        self._is_accepting = True
        #: Monotonic time at which to accept again; None while accepting.
        self._resume_at: float | None = None
        self._socket = name.listener
        loop.add(self._socket, selectors.EVENT_READ, self._accept)
        if name.fileno() >= 0:
            loop.add(name.fileno(), selectors.EVENT_READ, self._names_have_changed)

    def _names_have_changed(self, _events: int) -> None:
        if self._name.has_changed():
            self.renew()

    def renew(self) -> None:
        """Make the socket's name again if it is gone. Connections stay; those that wait on the old one are accepted first."""
        if self._name.renew(time.monotonic()):
            self._take_listener()
        self._on_names()

    def _take_listener(self) -> None:
        if self._is_accepting:
            self._accept(0)
        was_accepting = self._is_accepting
        self._pause()
        self._socket.close()
        self._socket = self._name.listener
        if was_accepting:
            self._go_on()

    def next_deadline(self) -> float | None:
        """Return when something is to be tried again."""
        return min((t for t in (self._resume_at, self._name.retry_at) if t is not None), default=None)

    def _accept(self, _events: int) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                accepted, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # EMFILE, ENFILE, ENOMEM, ENOBUFS: whatever it is, it is not worth the host's life
                self._pause()
                self._resume_at = time.monotonic() + _ACCEPT_PAUSE
                return
            try:
                self._welcome(accepted)
            except OSError:  # no room for it in the loop: epoll_ctl(2) has a limit of its own
                accepted.close()

    def _welcome(self, accepted: socket.socket) -> None:
        _pid, uid, gid = credentials_of(accepted)
        is_owner = uid in (0, os.geteuid())
        if not is_owner and not self._admits(uid, gid, supplementary_groups_of(accepted)):
            _turn_away(
                accepted,
                PermissionDenied(
                    "permission denied on the control socket",
                    "Only the host's owner, root and members of [host] control_group may connect.",
                ),
            )
            return
        if len(self.peers) >= MAX_CONNECTIONS - (0 if is_owner else RESERVED_CONNECTIONS):
            error = HostError(
                "too many connections to the control socket",
                f"The host serves {MAX_CONNECTIONS} at once.",
                "Close connections that are no longer used, then try again.",
            )
            _turn_away(accepted, error)
            return
        peer = Peer(self, accepted, self._loop, is_owner=is_owner)
        self.peers.add(peer)
        # Before the greeting: sending it can fail, and then the peer must be known in order to be forgotten.
        self._on_open(peer)
        message, fds = self._greeting(peer)
        peer.connection.send(message, fds)

    def resume_peer(self, carried: Mapping[str, Any], baggage: Baggage) -> Peer:
        """Take back a peer that ``Peer.carry`` has told of; whoever composes the host makes it known again."""
        peer = Peer(
            self,
            socket_of(carried["connection"], baggage),
            self._loop,
            is_owner=bool(carried["is_owner"]),
            carried=carried["connection"],
            baggage=baggage,
        )
        self.peers.add(peer)
        return peer

    def _pause(self) -> None:
        if self._is_accepting:
            self._is_accepting = False
            self._loop.remove(self._socket)

    def _go_on(self) -> None:
        self._resume_at = None
        self._is_accepting = True
        self._loop.add(self._socket, selectors.EVENT_READ, self._accept)

    def ensure(self, now: float) -> None:
        """Accept again once the pause is over; try once more for a name that could not be made again."""
        if self._resume_at is not None and now >= self._resume_at:
            self._go_on()
        if self._name.retry_at is not None and now >= self._name.retry_at:
            self.renew()

    def forget(self, peer: Peer) -> None:
        """Take a peer that has closed off the list; its descriptor may be the one that was missing."""
        self.peers.discard(peer)
        if self._resume_at is not None:
            self._resume_at = time.monotonic()

    def close(self) -> None:
        """Stop listening, remove the socket's name, end every connection."""
        self._pause()
        self._resume_at = None
        if self._name.fileno() >= 0:
            self._loop.remove(self._name.fileno())
        self._name.close()
        for peer in list(self.peers):
            peer.connection.close()


class Peer:
    """A client at the other end of the control socket."""

    def __init__(
        self,
        server: ControlServer,
        accepted: socket.socket,
        loop: Loop,
        *,
        is_owner: bool,
        carried: Mapping[str, Any] | None = None,
        baggage: Baggage | None = None,
    ) -> None:
        self._server = server
        self._socket = accepted
        #: Whether it is the host's user, or root; else it is a member of the control group.
        self.is_owner = is_owner
        #: Process that connected, as the kernel knew it at connect. It may have gone since.
        self.pid, self.uid, _gid = credentials_of(accepted)
        self.on_request: Callable[[Message], None] = lambda message: None
        self.on_close: Callable[[], None] = lambda: None
        self.connection = Connection(
            loop,
            accepted,
            lambda message: self.on_request(message),
            self._closed,
            limit=MAX_REQUEST_BYTES,
            carried=carried,
            baggage=baggage,
        )

    def carry(self, baggage: Baggage) -> dict[str, Any]:
        """Return what the same host needs to know this peer again after it has executed itself anew; the rest the kernel knows."""
        return {"is_owner": self.is_owner, "connection": self.connection.carry(baggage)}

    def open_pidfd(self) -> int:
        """Return a descriptor of the process that connected, for the caller to close.

        Raises:
            OSError: It has ended.
        """
        return pidfd_of(self._socket, self.pid)

    def _closed(self, _reason: str) -> None:
        self._server.forget(self)
        self.on_close()


def _turn_away(accepted: socket.socket, error: HostError) -> None:
    accepted.setblocking(False)
    try:
        accepted.send(encode(refusal(None, error)))
    except OSError:
        pass  # it did not wait for the answer
    accepted.close()
