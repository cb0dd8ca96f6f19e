"""The host's end of the control socket: binds it, accepts, checks who is there, says hello.

What the requests mean is not decided here: each whole message of a peer goes to the
composition root. Nothing a peer does blocks: accepting is bounded per turn, and above the
limit of connections a newcomer is refused politely. Without a descriptor left for anybody,
it stops accepting and tries again later.
"""

from __future__ import annotations

import os
import selectors
import socket
import stat
import time
from collections.abc import Callable, Sequence
from typing import Final

from bgworker._control.connection import Connection
from bgworker._control.peers import credentials_of, pidfd_of, supplementary_groups_of
from bgworker._control.protocol import MAX_REQUEST_BYTES, Message, encode, refusal
from bgworker._loop import Loop
from bgworker.errors import ConfigurationError, HostError, PermissionDenied

SOCKET_NAME: Final = "control.sock"
#: Connections at once; each costs the host a descriptor and at most one request line.
MAX_CONNECTIONS: Final = 256
#: Of these, kept for the host's user and root: members of the control group cannot shut them out.
RESERVED_CONNECTIONS: Final = 32
_ACCEPTS_PER_TURN: Final = 32
_BACKLOG: Final = 1024
#: Pause after accept() failed, in seconds: the listening socket stays readable, and the loop would spin.
_ACCEPT_PAUSE: Final = 0.5


class ControlServer:
    """Listens in ``run/`` of the data directory.

    Args:
        loop: The host's loop.
        run_directory: Path of the directory, ours and 0700.
        on_open: Called with each new peer.
        greeting: The first line that a peer gets, with descriptors.
        admits: Tells by uid, gid and supplementary groups who may connect besides the host's user and root.
        group: Group of the socket, whose members may connect; None lets its owner alone.
    """

    def __init__(
        self,
        loop: Loop,
        run_directory: str,
        on_open: Callable[[Peer], None],
        greeting: Callable[[Peer], tuple[Message, Sequence[int]]],
        admits: Callable[[int, int, frozenset[int] | None], bool] = lambda uid, gid, others: False,
        group: int | None = None,
    ) -> None:
        self._loop = loop
        self._on_open = on_open
        self._greeting = greeting
        self._admits = admits
        self._group = group
        self.peers: set[Peer] = set()
        self._directory_fd = os.open(run_directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._is_accepting = True
        #: Monotonic time at which to accept again; None while accepting.
        self.resume_at: float | None = None
        self._socket = _bind(self._directory_fd, run_directory, group)
        self._socket.setblocking(False)
        self._socket.listen(_BACKLOG)
        loop.add(self._socket, selectors.EVENT_READ, self._accept)

    def _accept(self, _events: int) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                accepted, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # EMFILE, ENFILE, ENOMEM, ENOBUFS: whatever it is, it is not worth the host's life
                self._pause()
                self.resume_at = time.monotonic() + _ACCEPT_PAUSE
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

    def _pause(self) -> None:
        if self._is_accepting:
            self._is_accepting = False
            self._loop.remove(self._socket)

    def ensure(self, now: float) -> None:
        """Accept again once the pause is over."""
        if self.resume_at is not None and now >= self.resume_at:
            self.resume_at = None
            self._is_accepting = True
            self._loop.add(self._socket, selectors.EVENT_READ, self._accept)

    def forget(self, peer: Peer) -> None:
        """Take a peer that has closed off the list; its descriptor may be the one that was missing."""
        self.peers.discard(peer)
        if self.resume_at is not None:
            self.resume_at = time.monotonic()

    def close(self) -> None:
        """Stop listening, remove the socket's name, end every connection."""
        self._pause()
        self.resume_at = None
        self._socket.close()
        try:
            os.unlink(SOCKET_NAME, dir_fd=self._directory_fd)
        except OSError:
            pass  # somebody removed it, or the file system is read-only by now: the next host replaces it
        os.close(self._directory_fd)
        for peer in list(self.peers):
            peer.connection.close()


class Peer:
    """A client at the other end of the control socket."""

    def __init__(self, server: ControlServer, accepted: socket.socket, loop: Loop, *, is_owner: bool) -> None:
        self._server = server
        self._socket = accepted
        #: Whether it is the host's user, or root; else it is a member of the control group.
        self.is_owner = is_owner
        #: Process that connected, as the kernel knew it at connect. It may have gone since.
        self.pid, self.uid, _gid = credentials_of(accepted)
        self.on_request: Callable[[Message], None] = lambda message: None
        self.on_close: Callable[[], None] = lambda: None
        self.connection = Connection(
            loop, accepted, lambda message: self.on_request(message), self._closed, limit=MAX_REQUEST_BYTES
        )

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


def _bind(directory_fd: int, run_directory: str, group: int | None) -> socket.socket:
    """Bind the socket in a directory that only we can write; a name left by a dead host is replaced."""
    path = f"{run_directory}/{SOCKET_NAME}"
    try:
        found = os.stat(SOCKET_NAME, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        pass
    else:
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
            raise ConfigurationError(
                f'could not create control socket "{path}": something else is there',
                "It is not a socket of this user; it is left untouched.",
                "Move it away, then start the host again.",
            )
        # The host lock is held: whoever bound this name is dead.
        os.unlink(SOCKET_NAME, dir_fd=directory_fd)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    os.fchmod(listener.fileno(), 0o600)  # Linux gives the mode of the descriptor to the name
    # A path through the descriptor is short whatever the directory's own path is (sun_path holds 107 bytes).
    listener.bind(f"/proc/self/fd/{directory_fd}/{SOCKET_NAME}")
    os.chmod(SOCKET_NAME, 0o600, dir_fd=directory_fd)
    if group is not None:
        os.chown(SOCKET_NAME, -1, group, dir_fd=directory_fd)
        os.chmod(SOCKET_NAME, 0o660, dir_fd=directory_fd)
    return listener
