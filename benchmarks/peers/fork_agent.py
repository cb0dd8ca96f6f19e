"""Forks on command, in both of Python's own ways; the process is the supervisor that is measured.

    fork_agent.py fork|forkserver BEACON

One JSON line in, one out. With ``fork`` a child that dies of SIGKILL is forked again at once:
the least that any supervisor does.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys
import time
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.subject import forked


class Forks:
    """os.fork() and waitpid()."""

    def __init__(self, beacon: str) -> None:
        self._beacon = beacon
        self._numbers: dict[int, int] = {}
        # What bgworker's loader does before it gives birth: nothing of what is loaded is touched by the collector again.
        gc.collect()
        gc.freeze()

    def launch(self, number: int) -> int:
        """Fork a worker."""
        pid = os.fork()
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                forked(self._beacon, number)
            finally:
                os._exit(1)
        self._numbers[pid] = number
        return pid

    def reap(self) -> None:
        """Fork again whatever died of SIGKILL."""
        while self._numbers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            number = self._numbers.pop(pid, None)
            if number is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
                self.launch(number)


class ForkServers:
    """multiprocessing's forkserver."""

    def __init__(self, beacon: str) -> None:
        self._beacon = beacon
        self._context: ForkServerContext = get_context("forkserver")
        self._context.set_forkserver_preload(["benchmarks.subject"])
        self._processes: dict[int, Any] = {}
        self.launch_and_end()

    def launch_and_end(self) -> None:
        """Bring the server itself up."""
        process = self._context.Process(target=time.sleep, args=(0,))
        process.start()
        process.join()

    def launch(self, number: int) -> int:
        """Start a process."""
        process = self._context.Process(target=forked, args=(self._beacon, number), daemon=True)
        process.start()
        assert process.pid is not None
        self._processes[process.pid] = process
        return process.pid

    def reap(self) -> None:
        """Leave it alone: nothing here starts a process again."""


def main() -> None:
    """Serve until standard input ends."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    ways: dict[str, Any] = {"fork": Forks, "forkserver": ForkServers}
    way = ways[sys.argv[1]](sys.argv[2])
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    if sys.argv[1] == "fork":
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    rest = b""
    while True:
        ready = select.select([0, read_fd], [], [])[0]
        if read_fd in ready:
            os.read(read_fd, 4096)
            way.reap()
        if 0 not in ready:
            continue
        received = os.read(0, 1 << 16)
        if not received:
            return
        *lines, rest = (rest + received).split(b"\n")
        for line in lines:
            order = json.loads(line)
            begin = time.monotonic_ns()
            pids = [way.launch(number) for number in order.get("launch", ())]
            answer = {"begin": begin, "end": time.monotonic_ns(), "answer": pids[-1] if pids else None}
            os.write(1, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
