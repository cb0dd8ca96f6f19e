"""The floor, and the standard library's own way: os.fork and multiprocessing's forkserver, from a Python with the same modules."""

from __future__ import annotations

import mmap
import os
import signal
import sys
from pathlib import Path
from typing import ClassVar

from benchmarks.harness import ROOT
from benchmarks.peers.way import Agent, Call, Way, timed


class _Forking(Way):
    """A process that forks on command; nothing is supervised but what the floor's own loop restarts."""

    has_static = False
    mode: ClassVar[str]

    def prepare(self, static: int, dynamic: int) -> None:
        assert not static, f"{self.name} has no static workers"

    def spawn(self) -> None:
        # forkserver imports what it preloads with the path that the environment gives.
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.agent = Agent(
            [sys.executable, "-P", str(Path(__file__).parent / "fork_agent.py"), self.mode, str(self.beacon.path)], env=environment
        )
        self._daemon = self.agent.process

    def await_ready(self) -> None:
        self.agent.call(ready=True)

    def launch(self, number: int) -> Call:
        return self.agent.call(launch=[number])

    def launch_all(self, numbers: range) -> None:
        self.agent.call(launch=list(numbers))

    def stop(self) -> None:
        for pid in self.beacon.pids:
            os.kill(pid, signal.SIGTERM)
        self.signal()

    def close(self) -> None:
        super().close()
        for stream in (self.agent.process.stdin, self.agent.process.stdout):
            if stream is not None:
                stream.close()


class RawFork(_Forking):
    """The floor: os.fork() and nothing else, from a process with the modules that bgworker's loader has."""

    name = "raw fork"
    mode = "fork"
    tells = frozenset({"one"})
    note = "the floor: nothing is captured, watched or told"

    asks = 1000

    def status_one(self, number: int) -> Call:
        """Read one number in mapped memory: what the least table of workers would cost its reader."""
        table = mmap.mmap(-1, mmap.PAGESIZE)

        def read() -> None:
            for _ in range(self.asks):
                table[0:8]

        return timed(read)


class ForkServer(_Forking):
    """multiprocessing's forkserver with the same modules preloaded."""

    name = "forkserver"
    mode = "forkserver"
    restarts = False
