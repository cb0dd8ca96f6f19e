"""A stand-in for the host, as a program: starts the database process as the real host does, reaps, and passes messages on.

Commands come as JSON lines on stdin, news go as JSON lines to stdout. It ends when stdin
does, so nothing outlives a test that dies.

    {"spawn": true}            start a database process         -> {"spawned": PID}
    {"send": MESSAGE}          send it to the database process
                                                                -> {"received": MESSAGE}
                                                                -> {"child_exited": PID, "status": STATUS}
"""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import signal
import socket
import sys
import tempfile
from typing import Any

from bgworker._control.protocol import Decoder, decode, encode
from bgworker._process.lifeline import Lifeline
from bgworker._process.prctl import set_child_subreaper
from bgworker._process.spawn import spawn_helper


class HostProcess:
    """One database process at a time, and every child that the kernel hands to this process."""

    def __init__(self) -> None:
        self.lifeline = Lifeline()
        self.lock = tempfile.TemporaryFile()  # noqa: SIM115 - for the life of the process
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.selector = selectors.DefaultSelector()
        self.database_pid = 0
        self.channel: socket.socket | None = None
        self.commands = Decoder()
        self.wake_receiver, wake_sender = socket.socketpair()
        self.wake_receiver.setblocking(False)
        wake_sender.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda _signum, _frame: None)
        signal.set_wakeup_fd(wake_sender.fileno())
        self.wake_sender = wake_sender
        set_child_subreaper()

    def run(self) -> None:
        """Serve until stdin ends."""
        self.selector.register(self.wake_receiver, selectors.EVENT_READ, self.reap)
        self.selector.register(sys.stdin, selectors.EVENT_READ, self.command)
        while True:
            for key, _events in self.selector.select():
                key.data()

    def tell(self, **news: Any) -> None:
        """Write a line for the test."""
        os.write(1, json.dumps(news).encode() + b"\n")

    def command(self) -> None:
        """Carry out what the test wants."""
        data = os.read(0, 65_536)
        if not data:
            sys.exit(0)
        for line in self.commands.feed(data):
            command = decode(line)
            if "spawn" in command:
                self.spawn()
            elif self.channel is not None:
                try:
                    self.channel.sendall(encode(command["send"]))
                except OSError:
                    pass  # it is dead, and its exit is on its way

    def spawn(self) -> None:
        """Start a database process."""
        channel, other = socket.socketpair()
        self.database_pid = spawn_helper("bgworker._database", other, self.lifeline.read_fd, self.lock.fileno())
        other.close()
        self.channel = channel
        decoder = Decoder()
        self.selector.register(channel, selectors.EVENT_READ, lambda: self.receive(channel, decoder))
        self.tell(spawned=self.database_pid)

    def receive(self, channel: socket.socket, decoder: Decoder) -> None:
        """Pass on what a database process says, also what an earlier one said last."""
        try:
            data = channel.recv(65_536)
        except ConnectionError:
            data = b""
        if not data:
            self.selector.unregister(channel)
            channel.close()
            if channel is self.channel:
                self.channel = None
            return
        for line in decoder.feed(data):
            self.tell(received=decode(line))

    def reap(self) -> None:
        """Reap, tell the database process as the host does, and tell the test."""
        self.wake_receiver.recv(4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid != self.database_pid and self.channel is not None:
                try:
                    self.channel.sendall(encode({"type": "child_exited", "pid": pid, "status": status}))
                except OSError:
                    pass
            self.tell(child_exited=pid, status=status)


if __name__ == "__main__":
    HostProcess().run()
