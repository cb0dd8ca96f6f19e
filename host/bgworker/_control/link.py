"""A session and its socket: every step does what can be done now and returns.

Both clients drive one of these, after ``transport.attach``: the threaded one from poll(2), the
asyncio one from its event loop. It never blocks and holds no lock.
"""

from __future__ import annotations

import os
import select
import socket

from bgworker._control.protocol import Message
from bgworker._control.session import Call, Session
from bgworker._control.transport import Attachment
from bgworker.errors import HostError, HostNotRunning

__all__ = ["Link"]

_RECEIVE_BYTES = 262_144
#: Peer has closed, or will send nothing more; POLLRDHUP is Linux's.
_HANG_UP = select.POLLHUP | select.POLLERR | select.POLLNVAL | getattr(select, "POLLRDHUP", 0)

#: Sockets of this process's connections, which a forked child must not keep: the host would take
#: the parent for connected as long as the child lives.
_open_sockets: set[socket.socket] = set()


def _close_inherited() -> None:
    for inherited in _open_sockets:
        inherited.close()
    _open_sockets.clear()


os.register_at_fork(after_in_child=_close_inherited)


class Link:
    """What is left of an attachment once it is in use.

    Not thread-safe: whoever drives it serialises the calls, ``is_hung_up`` excepted.
    """

    def __init__(self, attachment: Attachment) -> None:
        self.session = Session()
        self._socket = attachment.socket
        self._unsent = bytearray()
        self._data_directory = attachment.data_directory
        self._host_pid = attachment.greeting.pid
        self._owner_pid = os.getpid()
        _open_sockets.add(self._socket)

    def fileno(self) -> int:
        """Return the socket's descriptor, -1 once it is closed."""
        return self._socket.fileno()

    @property
    def has_unsent(self) -> bool:
        """Whether the socket did not take everything yet."""
        return bool(self._unsent)

    def is_hung_up(self) -> bool:
        """Whether the host has closed its end, even if something it said before is still unread. Any thread.

        A recv with MSG_PEEK would see the unread bytes and not the end behind them.
        """
        try:
            poller = select.poll()  # one for each call: poll objects refuse to be used by two threads at once
            poller.register(self._socket, _HANG_UP)
            return bool(poller.poll(0))
        except ValueError:
            return True  # closed

    def is_inherited(self) -> bool:
        """Whether this is a forked child of the process that connected; its copy of the socket is closed already."""
        return self._socket.fileno() < 0 and os.getpid() != self._owner_pid

    def check_process(self) -> None:
        """Refuse to go on in a forked child: parent and child would read each other's replies.

        Raises:
            HostError: This is another process than the one that connected.
        """
        if self.is_inherited():
            raise HostError(
                "connection to the host cannot be used after fork",
                f"It was made by process {self._owner_pid}, and this is process {os.getpid()}.",
                "Call bgworker.connect() in the child process.",
            )

    def ask(self, method: str, params: Message) -> Call:
        """Start a request: its line leaves now, or as soon as the socket takes it."""
        call, line = self.session.request(method, params)
        self._unsent += line
        self.send()
        return call

    def send(self) -> None:
        """Send what the socket takes."""
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent, socket.MSG_NOSIGNAL)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # The host has gone. Its last words may be waiting to be read, so the reading side notices.
                self._unsent.clear()
                return
            del self._unsent[:sent]

    def receive(self) -> list[Call]:
        """Take in one block of what arrived and return the calls that it ends."""
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            data = b""
        return self.session.feed(data) if data else self.session.fail(self._gone())

    def close(self) -> None:
        """Give the socket back."""
        _open_sockets.discard(self._socket)
        self._socket.close()

    def _gone(self) -> HostNotRunning:
        return HostNotRunning(
            "connection to the host is gone",
            f'The host of "{self._data_directory}", process {self._host_pid}, closed it; a host does so when it ends.',
            "Start a host with: bgworker run - then connect again.",
        )
