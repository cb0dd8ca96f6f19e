"""The workers that are measured: bgworker's, and those of the ways that clone a Python with the same modules.

Preloaded, so that the loader holds what a real one does: psycopg and both sample plugins. The
first line of each function takes the time. notify_demo is imported and not activated: its
counter ticks every second, and would be measured as a wake-up of the host's.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import psycopg  # noqa: F401 - held, as above

import notify_demo  # noqa: F401 - held, as above
import worker_spi  # noqa: F401 - held, as above
from bgworker import worker


def report(path: str, number: int, at: int) -> None:
    """Write one line to the beacon."""
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, b"%d %d %d\n" % (number, at, os.getpid()))
    os.close(fd)


def wait(main_arg: Any) -> None:
    """Report, then sleep on the latch until told to end."""
    at = time.monotonic_ns()
    report(main_arg[0], main_arg[1], at)
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass


def connected(main_arg: Any) -> None:
    """Report with the database connection open and answering, then sleep on the latch."""
    worker.connect().execute("SELECT 1")
    at = time.monotonic_ns()
    report(main_arg[0], main_arg[1], at)
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass


def come_and_go(main_arg: Any) -> None:
    """Return at once."""


def write_lines(main_arg: Any) -> None:
    """Print so many lines of 100 bytes, each with its number, then sleep on the latch."""
    path, number, lines = main_arg
    report(path, number, time.monotonic_ns())
    worker.unblock_signals()
    print_lines(lines)
    for _ in worker.latch_loop():
        pass


def print_lines(lines: int) -> None:
    """Print so many lines of 100 bytes, a thousand at a time."""
    tail = "x" * 89
    for first in range(0, lines, 1000):
        sys.stdout.write("".join(f"{number:09} {tail}\n" for number in range(first, min(first + 1000, lines))))
    sys.stdout.flush()


def forked(path: str, number: int) -> None:
    """Do the same in a process that no supervisor watches: report, then sleep. Never returns."""
    at = time.monotonic_ns()
    report(path, number, at)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        signal.pause()
