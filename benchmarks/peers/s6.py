"""s6, driven with its commands on service directories; Debian's package."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from benchmarks.harness import DEADLINE
from benchmarks.peers.way import Call, Way, timed


def write_service(directory: Path, command: list[str], *, is_down: bool) -> None:
    """Write a service directory as s6 and runit know it: ``run``, and ``down`` if it is not to start by itself."""
    directory.mkdir(parents=True)
    run = directory / "run"
    run.write_text("#!/bin/sh\nexec " + " ".join(command) + "\n")
    run.chmod(0o755)
    if is_down:
        (directory / "down").touch()


def is_heard(fifo: Path) -> bool:
    """Whether a supervisor reads this FIFO."""
    os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    return True


class S6(Way):
    """A scan directory with a service for each worker; a worker on request is a service that is down until then."""

    name = "s6"
    tells = frozenset({"one"})

    @classmethod
    def missing(cls) -> str:
        return "" if shutil.which("s6-svscan") else "s6-svscan is not installed"

    def prepare(self, static: int, dynamic: int) -> None:
        self._services = self.directory / "services"
        self._services.mkdir()
        for number in range(static + dynamic):
            write_service(self._services / f"w{number}", self.worker_command(number), is_down=number >= static)
        self._dynamic = range(static, static + dynamic)

    def spawn(self) -> None:
        self.run(["s6-svscan", "-c", "5000", str(self._services)])

    def await_ready(self) -> None:
        for number in self._dynamic:
            fifo = self._services / f"w{number}" / "supervise" / "control"
            self.until(lambda fifo=fifo: is_heard(fifo))  # type: ignore[misc]

    def _control(self, *arguments: str) -> None:
        subprocess.run(arguments, check=True, timeout=DEADLINE, capture_output=True)

    def launch(self, number: int) -> Call:
        return timed(lambda: self._control("s6-svc", "-wu", "-u", str(self._services / f"w{number}")))

    def launch_all(self, numbers: range) -> None:
        for number in numbers:
            self._control("s6-svc", "-u", str(self._services / f"w{number}"))

    def stop(self) -> None:
        self.signal(signal.SIGTERM)

    def status_one(self, number: int) -> Call:
        return timed(lambda: self._control("s6-svstat", str(self._services / f"w{number}")))

    def command(self) -> list[str]:
        return ["s6-svstat", str(self._services / "w0")]
