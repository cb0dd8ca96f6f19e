"""What each way of running workers must be able to do to be compared, and what the adapters share.

An adapter drives one supervisor through the interface that its users have, in a directory of its
own. Calls are timed by whoever makes them - this process, or an agent in the peer's own language
- always on the monotonic clock, so that they compare with what workers write to the beacon.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

from benchmarks.beacon import Beacon
from benchmarks.environment import peers_python
from benchmarks.harness import DEADLINE, ROOT
from benchmarks.processes import End, below, name_of

#: The worker that peers execute: the smallest Python that can say when it ran.
SMALL_WORKER: Final = Path(__file__).parent / "small_worker.py"
#: Seconds for a supervisor to end before it is killed.
_STOP_DEADLINE: Final = 60.0


class Call(NamedTuple):
    """One timed call, in monotonic nanoseconds."""

    begin: int
    end: int
    #: What was answered, as far as anybody looks at it.
    answer: Any = None

    @property
    def ms(self) -> float:
        """How long it took."""
        return (self.end - self.begin) / 1e6


def timed(function: Callable[[], Any]) -> Call:
    """Call and time a function of this process."""
    begin = time.monotonic_ns()
    answer = function()
    return Call(begin, time.monotonic_ns(), answer)


class Way(ABC):
    """One way of running workers. Workers have numbers, from 0; those below ``static`` are up when it is.

    Args:
        directory: Its own, removed by the runner.
        beacon: Where its workers say that they run.
    """

    name: ClassVar[str]
    #: Whether a worker that is killed comes back.
    restarts: ClassVar[bool] = True
    #: Whether it says how one worker, all workers, or both do.
    tells: ClassVar[frozenset[str]] = frozenset()
    #: Whether a worker that is killed takes the others with it, which then come back, too.
    crash_takes_all: ClassVar[bool] = False
    #: How often status_one asks in one timed call; more than once where the clock would be most of it.
    asks: ClassVar[int] = 1
    #: Whether its workers can be in its configuration.
    has_static: ClassVar[bool] = True
    #: Whether stopping hundreds takes it so long that once must do.
    slow_to_stop: ClassVar[bool] = False
    #: One sentence to go with its figures.
    note: ClassVar[str] = ""

    def __init__(self, directory: Path, beacon: Beacon) -> None:
        self.directory = directory
        self.beacon = beacon
        self._daemon: subprocess.Popen[bytes] | None = None

    @classmethod
    def missing(cls) -> str:
        """Return why it cannot take part here; nothing if it can."""
        return ""

    @abstractmethod
    def prepare(self, static: int, dynamic: int) -> None:
        """Write what must be on disk: so many workers that start with it, so many that may come. Not timed."""

    @abstractmethod
    def spawn(self) -> None:
        """Execute it; it need not be ready."""

    @abstractmethod
    def await_ready(self) -> None:
        """Return when it takes calls."""

    @abstractmethod
    def launch(self, number: int) -> Call:
        """Have a worker started, with the call that its users would make."""

    @abstractmethod
    def stop(self) -> None:
        """Tell it to stop everything and itself; need not wait."""

    def launch_all(self, numbers: range) -> None:
        """Have many workers started, in the fastest way its users have."""
        for number in numbers:
            self.launch(number)

    def status_one(self, number: int) -> Call:
        """Ask how one worker does."""
        raise NotImplementedError

    def status_all(self) -> Call:
        """Ask how all workers do."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """Return the command line that shows the status; an empty one if there is none."""
        return []

    def own(self) -> list[int]:
        """Return the processes that a measurement counts as its own, without the workers."""
        roots = [self._daemon.pid] if self._daemon is not None else []
        return self.without_workers(roots)

    def without_workers(self, roots: list[int]) -> list[int]:
        """Return these processes and those below them that are no workers."""
        workers = self.beacon.pids
        return [pid for pid in below(*roots) if pid not in workers]

    def close(self) -> None:
        """End it and all of its workers, whatever state they are in."""
        self.close_tree([] if self._daemon is None or self._daemon.poll() is not None else [self._daemon.pid])
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()

    def close_tree(self, roots: list[int]) -> None:
        """End these processes, all below them, and all workers."""
        end = End({*below(*roots), *self.beacon.pids})
        try:
            if roots:
                self.stop()
                end.wait(_STOP_DEADLINE)
        finally:
            end.kill()
            end.close()
            # One that was born in between has become ours; its command line names this way's directory.
            late = End(pid for pid in below(os.getpid()) if pid != os.getpid() and f"{self.directory}/" in name_of(pid))
            late.kill()
            late.close()

    def worker_command(self, number: int | str) -> list[str]:
        """Return what a peer is told to execute as a worker."""
        return [sys.executable, "-S", "-E", str(SMALL_WORKER), str(self.beacon.path), str(number)]

    def run(self, command: Sequence[str], **options: Any) -> None:
        """Execute the supervisor, its output into a file of its directory."""
        with (self.directory / "output").open("ab") as output:
            self._daemon = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                start_new_session=True,
                **options,
            )

    def until(self, is_ready: Callable[[], Any]) -> None:
        """Wait for a supervisor that has no way of saying that it is ready; not part of any figure.

        Raises:
            RuntimeError: It has ended, or the deadline has passed.
        """
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            if self._daemon is not None and self._daemon.poll() is not None:
                break
            try:
                if is_ready():
                    return
            except OSError:
                pass
            time.sleep(0.01)
        raise RuntimeError(f"{self.name} is not ready: {(self.directory / 'output').read_text(errors='replace')[-500:]}")

    def signal(self, signum: int = signal.SIGTERM) -> None:
        """Send the supervisor a signal if it runs."""
        if self._daemon is not None and self._daemon.poll() is None:
            self._daemon.send_signal(signum)


class Agent:
    """A process that makes and times calls on command, one JSON line for each order and each answer.

    Args:
        command: What to execute.
    """

    def __init__(self, command: Sequence[str], **options: Any) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, **options)

    def tell(self, **order: Any) -> None:
        """Give an order whose answer nobody waits for; no call may follow."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()

    def call(self, **order: Any) -> Call:
        """Have something done.

        Raises:
            RuntimeError: The agent died, or says that it went wrong.
        """
        self.tell(**order)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the agent ended with code {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return Call(int(answer["begin"]), int(answer["end"]), answer.get("answer"))

    def close(self) -> None:
        """End it."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def peers_agent(script: str, *arguments: str) -> Agent:
    """Run an agent with the Python of the peers' environment."""
    # -P: a script's own directory on sys.path would put our adapter in the place of the package it is named after.
    return Agent([str(peers_python()), "-P", str(Path(__file__).parent / script), *arguments], env={**os.environ, "PYTHONPATH": ""})
