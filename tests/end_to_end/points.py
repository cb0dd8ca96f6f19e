"""The test's end of the injection points: who has come to which, and what each of them is told.

``points.hold("loader.birth")`` before, ``points.wait_for("loader.birth")`` until somebody is held there,
``points.release("loader.birth")`` to let go who is held and who comes later. A point that is not held answers "go".
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest

from bgworker._process.injection import VARIABLE
from bgworker.testing import DEADLINE, RunningHost


class Held(NamedTuple):
    """A process that waits at a point."""

    pid: int
    connection: socket.socket

    def answer(self, words: str = "go") -> None:
        """Tell it what to do; it may have been killed meanwhile."""
        with self.connection:
            try:
                self.connection.sendall(f"{words}\n".encode())
            except OSError:
                pass


class Points:
    """A listener in a thread of its own; everything else is asked of it under one lock."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="points", dir="/tmp")
        # Workers of another user come, too.
        Path(self._directory.name).chmod(0o711)
        self.path = f"{self._directory.name}/s"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        Path(self.path).chmod(0o777)
        self._listener.listen(256)
        self._changed = threading.Condition()
        self._is_held: set[str] = set()
        self._held: dict[str, list[Held]] = defaultdict(list)
        #: What the next ones to come are told, by point.
        self._orders: dict[str, list[str]] = defaultdict(list)
        self._came: dict[str, int] = defaultdict(int)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            match connection.recv(100).decode().split():
                case [name, pid]:
                    held = Held(int(pid), connection)
                case _:  # killed before it could say who it is
                    connection.close()
                    continue
            with self._changed:
                self._came[name] += 1
                if self._orders[name]:
                    held.answer(self._orders[name].pop(0))
                elif name in self._is_held:
                    self._held[name].append(held)
                else:
                    held.answer()
                self._changed.notify_all()

    def hold(self, name: str) -> None:
        """Hold everybody who comes to this point from now on."""
        with self._changed:
            self._is_held.add(name)

    def order(self, name: str, *words: str) -> None:
        """Tell the next ones who come to this point these words, one each."""
        with self._changed:
            self._orders[name] += words

    def wait_for(self, name: str, count: int = 1) -> list[Held]:
        """Wait until so many are held at a point, and return them."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._held[name]) >= count, DEADLINE):
                pytest.fail(f"{len(self._held[name])} instead of {count} came to {name}")
            return list(self._held[name])

    def release(self, name: str, words: str = "go") -> None:
        """Hold nobody here any more; who is held is told these words."""
        with self._changed:
            self._is_held.discard(name)
            held, self._held[name] = self._held[name], []
            for each in held:
                each.answer(words)

    def came(self, name: str) -> int:
        """Return how often somebody has come to this point."""
        with self._changed:
            return self._came[name]

    def start(self, host: RunningHost) -> None:
        """Start a host whose processes come here."""
        with host.output.open("ab") as output:
            host.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "bgworker", "run", "-c", str(host.config_path)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=host.directory, start_new_session=True,
                env={**os.environ, VARIABLE: self.path},
            )  # fmt: skip

    def close(self) -> None:
        """Let everybody go."""
        with self._changed:
            self._is_held.clear()
            self._orders.clear()
        for name in list(self._held):
            self.release(name)
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(DEADLINE)
        self._directory.cleanup()
