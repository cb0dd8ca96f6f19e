"""The host's helper programs (loader, database, collector): how one sets itself up and talks to the host.

A helper is executed with ``--channel FD --lifeline FD --lock FD``. It imports this room,
never the host's.
"""

from __future__ import annotations

import argparse
import array
import os
import signal
import socket
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from bgworker._control.protocol import MAX_REPLY_BYTES, Decoder, Message, decode, encode
from bgworker._process.prctl import set_pdeathsig

#: How many descriptors one receive may bring: the most that Linux passes at once (SCM_MAX_FD).
_MAX_FDS: Final = 253
_RECEIVE_BYTES: Final = 65_536
_INT_SIZE: Final = array.array("i").itemsize


class HelperChannel:
    """The helper's end of its channel to the host: whole messages with their descriptors."""

    def __init__(self, channel: socket.socket, lifeline_fd: int) -> None:
        self.lifeline_fd = lifeline_fd
        self._socket = channel
        self._decoder = Decoder(MAX_REPLY_BYTES)
        self._fds: deque[int] = deque()

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def pending_fds(self) -> list[int]:
        """Return the descriptors that have arrived before the rest of their message; for a child that must not hold them."""
        return list(self._fds)

    def receive(self) -> list[tuple[Message, list[int]]]:
        """Return the messages that have arrived, each with the descriptors it names; does not wait.

        Raises:
            EOFError: The host has closed the channel.
        """
        messages: list[tuple[Message, list[int]]] = []
        while True:
            try:
                data, fds = _receive(self._socket)
            except BlockingIOError:
                return messages
            except ConnectionError:
                data, fds = b"", []
            self._fds.extend(fds)
            if not data:
                if messages:
                    return messages
                raise EOFError("the host closed the channel")
            for line in self._decoder.feed(data):
                message = decode(line)
                messages.append((message, [self._fds.popleft() for _ in range(int(message.get("fds", 0)))]))

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send one message; waits while the host's buffer is full. A host that has gone is no error: the lifeline tells."""
        self._send(encode({**message, "fds": len(fds)} if fds else message), fds)

    def send_all(self, messages: Iterable[Message]) -> None:
        """Send several messages, which wake the host once."""
        self._send(b"".join(map(encode, messages)))

    def _send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        try:
            sent = socket.send_fds(self._socket, [data], list(fds)) if fds else self._socket.send(data)
            if sent < len(data):
                self._socket.sendall(data[sent:])
        except (BrokenPipeError, ConnectionError):
            pass

    def close(self) -> None:
        """Close this end; for a child that must not hold it."""
        self._socket.close()


def _receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    """Receive what is there, descriptors close-on-exec. socket.recv_fds() takes flags and ignores them, so it is no help."""
    flags = socket.MSG_DONTWAIT | getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    data, ancillary, _flags, _address = channel.recvmsg(_RECEIVE_BYTES, socket.CMSG_SPACE(_MAX_FDS * _INT_SIZE), flags)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % _INT_SIZE])
    return data, list(fds)


def setup(name: str, argv: Sequence[str] | None = None) -> HelperChannel:
    """Turn this process into a helper of the host: session, death signal, title, signals, channel.

    Args:
        name: Shown in the process title.
        argv: Arguments; those of the program by default.
    """
    parser = argparse.ArgumentParser(
        prog=f"bgworker {name}", description="A helper program of the bgworker host; not for use by hand."
    )
    for option in ("--channel", "--lifeline", "--lock"):
        parser.add_argument(option, type=int, required=True)
    arguments = parser.parse_args(argv)
    for fd in (arguments.channel, arguments.lifeline, arguments.lock):
        os.set_inheritable(fd, False)
    # Armed first, and the lifeline looked at afterwards by whoever waits on it: a host that is dead already shows there.
    set_pdeathsig(signal.SIGKILL)
    if os.getpid() != os.getsid(0):
        os.setsid()
    # The host is told to stop and tells its helpers; a Ctrl-C or a signal to everybody must not overtake that.
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):
        signal.signal(signum, signal.SIG_IGN)
    set_title(f"bgworker: {name}")
    return HelperChannel(socket.socket(fileno=arguments.channel), arguments.lifeline)


def set_title(title: str) -> None:
    """Show what this process is in ps and top; best effort."""
    try:
        import setproctitle
    except (ImportError, OSError):  # not installed, or no descriptor left to read it with
        return
    setproctitle.setproctitle(title)
