"""runit, driven with sv on service directories; Debian's package."""

from __future__ import annotations

import shutil
import signal
import subprocess

from benchmarks.harness import DEADLINE
from benchmarks.peers.s6 import is_heard, write_service
from benchmarks.peers.way import Call, Way, timed


class Runit(Way):
    """A directory with a service for each worker; a worker on request is a service that is down until then."""

    name = "runit"
    tells = frozenset({"one"})
    note = "`sv start` looks for the pid after 0.42 s"

    @classmethod
    def missing(cls) -> str:
        return "" if shutil.which("runsvdir") and shutil.which("sv") else "runsvdir is not installed"

    def prepare(self, static: int, dynamic: int) -> None:
        self._services = self.directory / "services"
        self._services.mkdir()
        for number in range(static + dynamic):
            write_service(self._services / f"w{number}", self.worker_command(number), is_down=number >= static)
        self._dynamic = range(static, static + dynamic)

    def spawn(self) -> None:
        self.run(["runsvdir", "-P", str(self._services)])

    def await_ready(self) -> None:
        for number in self._dynamic:
            fifo = self._services / f"w{number}" / "supervise" / "ok"
            self.until(lambda fifo=fifo: is_heard(fifo))  # type: ignore[misc]

    def _sv(self, verb: str, *numbers: int) -> None:
        services = [str(self._services / f"w{number}") for number in numbers]
        subprocess.run(["sv", verb, *services], check=True, timeout=DEADLINE, capture_output=True)

    def launch(self, number: int) -> Call:
        return timed(lambda: self._sv("start", number))

    def launch_all(self, numbers: range) -> None:
        self._sv("up", *numbers)

    def stop(self) -> None:
        self.signal(signal.SIGHUP)

    def status_one(self, number: int) -> Call:
        return timed(lambda: self._sv("status", number))

    def command(self) -> list[str]:
        return ["sv", "status", str(self._services / "w0")]
