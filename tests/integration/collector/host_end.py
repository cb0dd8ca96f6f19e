"""The host's end of a real collector process, and workers that are only their pipes."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bgworker._control.protocol import Decoder, decode, encode

#: Longest wait of a test for something that must happen.
PATIENCE = 20.0

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str) -> T:
    """Return what the condition returns once that is true."""
    deadline = time.monotonic() + PATIENCE
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        time.sleep(0.005)
    return result


class Worker:
    """A worker that is only the two pipes that its output would go through."""

    def __init__(self, life: str, identity: dict[str, Any]) -> None:
        self.life = life
        self.identity = identity
        out_read, self.stdout = os.pipe()
        err_read, self.stderr = os.pipe()
        #: The host's copies, for a collector that replaces a dead one.
        self.read_fds = [out_read, err_read]

    def out(self, data: bytes) -> None:
        """Write to stdout, waiting while the pipe is full."""
        _write_all(self.stdout, data)

    def err(self, data: bytes) -> None:
        """Write to stderr."""
        _write_all(self.stderr, data)

    def is_drained(self) -> bool:
        """Whether everything that was written has been read."""
        return not any(select.select([fd], [], [], 0)[0] for fd in self.read_fds)

    def close_writers(self) -> None:
        """End both streams, as the death of the process does."""
        for fd in (self.stdout, self.stderr):
            if fd >= 0:
                os.close(fd)
        self.stdout = self.stderr = -1

    def close_readers(self) -> None:
        """Close the host's copies, as it does when told that nothing more comes."""
        for fd in self.read_fds:
            os.close(fd)
        self.read_fds = []


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class HostEnd:
    """Starts the collector as the host does, and speaks with it.

    Args:
        data_directory: Must exist.
        log: As in workers.toml.
        prefix: Words before the command.
        stderr: Where the collector's stderr goes.
        more: Other keys of the configuration.
    """

    def __init__(
        self, data_directory: Path | str, log: str = "files", prefix: Sequence[str] = (), stderr: int | None = None, **more: Any
    ) -> None:
        self.data_directory = Path(data_directory)
        self.log = log
        self.workers: list[Worker] = []
        self._more = more
        self._prefix = prefix
        self._stderr_fd = stderr
        self.process: subprocess.Popen[bytes]
        self._inbox: list[dict[str, Any]] = []
        self.start()

    def start(self) -> None:
        """Start a collector and configure it."""
        self._channel, theirs = socket.socketpair()
        lifeline_fd, self._lifeline = os.pipe()
        lock = os.open(os.devnull, os.O_RDONLY)
        passed = (theirs.fileno(), lifeline_fd, lock)
        options = ["--channel", str(passed[0]), "--lifeline", str(passed[1]), "--lock", str(passed[2])]
        self.process = subprocess.Popen(
            [*self._prefix, sys.executable, "-P", "-m", "bgworker._collector", *options],
            pass_fds=passed,
            stdin=subprocess.DEVNULL,
            stderr=self._stderr_fd,
        )
        theirs.close()
        os.close(lifeline_fd)
        os.close(lock)
        self._decoder = Decoder()
        self.send(
            {"type": "configure", "data_directory": str(self.data_directory), "log": self.log, "format": "plain", **self._more}
        )

    @property
    def seen_directory(self) -> Path:
        """The data directory as the collector sees it, also when that is in a mount namespace."""
        return Path(f"/proc/{self.process.pid}/root{self.data_directory}")

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send one message."""
        if fds:
            message = {**message, "fds": len(fds)}
        socket.send_fds(self._channel, [encode(message)], fds)

    def expect(self, kind: str, life: str | None = None) -> dict[str, Any]:
        """Return the collector's next message of this type, and about this life."""
        deadline = time.monotonic() + PATIENCE
        while True:
            for message in self._inbox:
                if message["type"] == kind and life in (None, message.get("life")):
                    self._inbox.remove(message)
                    return message
            ready, _, _ = select.select([self._channel], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no message {kind!r} about {life}; there are {self._inbox}"
            self._receive()

    def has_message(self, kind: str) -> bool:
        """Whether a message of this type has come."""
        while select.select([self._channel], [], [], 0)[0]:
            self._receive()
        return any(message["type"] == kind for message in self._inbox)

    def _receive(self) -> None:
        data = self._channel.recv(65536)
        assert data, "the collector has closed the channel"
        self._inbox += [decode(line) for line in self._decoder.feed(data)]

    def attach(
        self, name: str, *, bgw_type: str = "", is_static: bool = True, slot: int = 0, generation: int = 1, pid: int = 4711
    ) -> Worker:
        """Attach a new worker."""
        identity = {
            "bgw_name": name,
            "bgw_type": bgw_type or name,
            "slot": slot,
            "generation": generation,
            "pid": pid,
            "is_static": is_static,
        }
        worker = Worker(f"{slot}.{generation}.1", identity)
        self.workers.append(worker)
        self.attach_again(worker)
        return worker

    def attach_again(self, worker: Worker) -> None:
        """Hand the worker's pipes over."""
        self.send({"type": "attach", "life": worker.life, **worker.identity}, worker.read_fds)

    def exited(self, worker: Worker, message: str | None = None) -> str:
        """Report the worker's exit and return the tail; all of its output is in the files then."""
        self.send({"type": "exited", "life": worker.life, "message": message})
        return str(self.expect("tail", worker.life)["line"])

    def sync(self) -> None:
        """Return when every message sent before has been dealt with."""
        self.send({"type": "exited", "life": "nobody", "message": None})
        self.expect("tail", "nobody")

    def log_fact(self, message: str, **more: Any) -> None:
        """Send a fact of the host."""
        self.send({"type": "log", "level": "LOG", "message": message, **more})

    def lines(self, *parts: str) -> list[str]:
        """Return the lines of a log file, as the collector sees it."""
        path = self.seen_directory.joinpath("log", *parts)
        return path.read_text().splitlines() if path.exists() else []

    def texts(self, *parts: str) -> list[str]:
        """Return the lines without time and time zone."""
        return [line.partition(" UTC ")[2] for line in self.lines(*parts)]

    def kill(self) -> None:
        """Kill the collector, and close what only it and this channel needed."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)
        self._close_channel()

    def stop(self) -> int:
        """Stop the collector in order and return its exit code."""
        self.send({"type": "stop"})
        return self.process.wait(PATIENCE)

    def die(self) -> int:
        """Be a host that dies: the channel and the lifeline end. Return the collector's exit code."""
        self._close_channel()
        return self.process.wait(PATIENCE)

    def _close_channel(self) -> None:
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        self._channel.close()

    def close(self) -> None:
        """Leave nothing behind."""
        for worker in self.workers:
            worker.close_writers()
            worker.close_readers()
        self._close_channel()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)
