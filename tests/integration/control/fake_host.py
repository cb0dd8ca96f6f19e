"""A host that is none: a listening socket, two real shared tables, and answers that the test chooses."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bgworker._control.protocol import MAX_REQUEST_BYTES, Decoder, decode, encode, refusal, reply
from bgworker._shm.layout import SEQ, ActivityRecord, activity_offset, pack_activity, slot_offset
from bgworker._shm.table import ActivityTable, SlotTable
from bgworker.errors import HostError

#: Longest wait of a test for something that must happen.
PATIENCE = 10.0


class Held:
    """A request that the fake host has read and not answered."""

    def __init__(self, peer: socket.socket, message: dict[str, Any]) -> None:
        self._peer = peer
        self.id = message["id"]
        self.method = message["method"]
        self.params = message["params"]

    def answer(self, result: dict[str, Any]) -> None:
        """Reply with a result."""
        self._peer.sendall(encode(reply(self.id, result)))

    def refuse(self, error: HostError) -> None:
        """Reply with an error."""
        self._peer.sendall(encode(refusal(self.id, error)))


class FakeHost:
    """Serves one data directory until ``die()``."""

    def __init__(self, data_directory: Path, slots: int = 8) -> None:
        self.data_directory = data_directory
        self.slots = SlotTable(slots)
        self.activity = ActivityTable(slots)
        #: Method -> result, error, or function of the parameters that gives either. What is not here is held.
        self.answers: dict[str, Any] = {"ping": {}}
        self.greeting: dict[str, Any] = {
            "bgworker": 1,
            "version": "0.1.0",
            "pid": os.getpid(),
            "max_worker_processes": slots,
            "fds": 2,
        }
        self.greeting_fds = [self.slots.read_only_fd, self.activity.read_only_fd]
        self.says_hello = threading.Event()
        self.says_hello.set()
        self.is_reading = threading.Event()
        self.is_reading.set()
        self.held: list[Held] = []
        self.requests: list[dict[str, Any]] = []
        self.peers: list[socket.socket] = []
        self.subscribers: list[socket.socket] = []
        self._changed = threading.Condition()
        self.threads: list[threading.Thread] = []
        (data_directory / "run").mkdir(parents=True, mode=0o700)
        self._directory_fd = os.open(data_directory / "run", os.O_PATH | os.O_DIRECTORY)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(f"/proc/self/fd/{self._directory_fd}/control.sock")
        self._listener.listen(64)
        self._spawn(self._accept)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds after something the host did."""
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE), "the fake host never saw it"

    def hold(self, count: int) -> list[Held]:
        """Wait until so many requests are held and return them."""
        self.wait_for(lambda: len(self.held) >= count)
        return self.held

    def notify(self, event: dict[str, Any]) -> None:
        """Send a notice to every peer that asked for events."""
        for peer in self.subscribers:
            peer.sendall(encode(event))

    def write_activity(self, slotno: int, record: ActivityRecord) -> None:
        """Write as the worker in the slot does."""
        os.pwrite(self.activity.fd, SEQ.pack(2) + pack_activity(record), activity_offset(slotno))

    def tear_slot(self, slotno: int) -> None:
        """Leave a record as a writer leaves it that died while writing."""
        os.pwrite(self.slots._fd, SEQ.pack(9), slot_offset(slotno))

    def die(self) -> None:
        """End as a killed process does: every descriptor at once, no farewell, the socket's name left behind."""
        self._shut(self._listener)
        self.is_reading.set()
        self.says_hello.set()
        for peer in self.peers:
            self._shut(peer)
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def close(self) -> None:
        """Die, and take the tables along."""
        self.die()
        self.slots.close()
        self.activity.close()
        os.close(self._directory_fd)

    def _spawn(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        thread.start()
        # Only now: whoever finds it here may wait for its end.
        with self._changed:
            self.threads.append(thread)
            self._changed.notify_all()

    @staticmethod
    def _shut(end: socket.socket) -> None:
        try:
            end.shutdown(socket.SHUT_RDWR)  # wakes the thread that blocks in it
        except OSError:
            pass
        end.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _address = self._listener.accept()
            except OSError:
                return
            with self._changed:
                self.peers.append(peer)
                self._changed.notify_all()
            self._spawn(self._serve, peer)

    def _serve(self, peer: socket.socket) -> None:
        decoder = Decoder(MAX_REQUEST_BYTES)
        try:
            if self.says_hello.wait(PATIENCE):
                socket.send_fds(peer, [encode(self.greeting)], self.greeting_fds)
            while True:
                self.is_reading.wait(PATIENCE)
                data = peer.recv(65_536)
                if not data:
                    return
                for line in decoder.feed(data):
                    self._take(peer, decode(line))
        except OSError:
            return

    def _take(self, peer: socket.socket, message: dict[str, Any]) -> None:
        answer = self.answers.get(message["method"])
        if callable(answer):
            answer = answer(message["params"])
        if message["method"] == "events" and answer is None:
            self.subscribers.append(peer)
            answer = {}
        # Noted before it is answered: whoever has the answer may look at once what was asked.
        with self._changed:
            self.requests.append(message)
            if answer is None:
                self.held.append(Held(peer, message))
            self._changed.notify_all()
        if isinstance(answer, HostError):
            peer.sendall(encode(refusal(message["id"], answer)))
        elif answer is not None:
            peer.sendall(encode(reply(message["id"], answer)))
