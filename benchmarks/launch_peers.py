"""What benchmarks/launch.py has run: the function of the workers that are launched, and the floor, raw os.fork.

The floor is a program that has imported what the loader has imported for the same
configuration, frozen as the loader is, and forks on command: a child's first line looks at the
monotonic clock, as the worker's first line does.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import struct
import sys
import time
from importlib import import_module

from benchmarks.harness import Peer

#: What a worker, and a child of the floor, says with its first line: the monotonic clock in nanoseconds, and its pid.
STAMP = struct.Struct("qq")
#: What the loader of the benchmark's configuration has in memory.
_MODULES = (
    "bgworker._loader.__main__",
    "bgworker._worker.main",
    "bgworker.worker",
    "bgworker.spi",
    "psycopg",
    "worker_spi",
    "notify_demo",
)


def stamp(path: str) -> None:
    """Say when the first line ran, then sleep on the latch."""
    now = time.monotonic_ns()
    from bgworker import worker

    if path:
        _say(path, now)
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass


def idle(path: str) -> None:
    """Sleep on the latch."""
    stamp("")


def _say(path: str, now: int) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(STAMP.pack(now, os.getpid()), path)


def floor(path: str, stamps: str) -> None:
    """Fork on command, and end the child on command: ``{"fork": n}`` starts n, ``{"kill": pid}`` kills one and forks the next."""
    for name in _MODULES:
        import_module(name)
    gc.collect()
    gc.freeze()
    peer = Peer.call(path)
    peer.tell(name="floor")
    children: list[int] = []
    while (order := peer.hear()) is not None:
        at = time.monotonic_ns()
        if "kill" in order:
            child = children.pop()
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            children.append(_fork(stamps))
        elif "fork" in order:
            children += [_fork(stamps) for _ in range(order["fork"])]
        else:
            for child in children:
                os.kill(child, signal.SIGTERM)
            for child in children:
                os.waitpid(child, 0)
            children.clear()
        peer.tell(at=at, done=time.monotonic_ns())


def _fork(stamps: str) -> int:
    pid = os.fork()
    if pid == 0:
        now = time.monotonic_ns()
        _say(stamps, now)
        while True:
            select.poll().poll(None)
    return pid


if __name__ == "__main__":
    floor(*sys.argv[1:])
