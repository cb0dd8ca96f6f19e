"""A worker that imports psycopg and sleeps: under bgworker its function ``main``, under others this file as a program."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import psycopg  # noqa: F401 - what is measured


def _report(path: str, number: int) -> None:
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, b"%d %d %d\n" % (number, time.monotonic_ns(), os.getpid()))
    os.close(fd)


def main(main_arg: Any) -> None:
    """Sleep on the latch."""
    from bgworker import worker

    _report(*main_arg)
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass


if __name__ == "__main__":
    _report(sys.argv[1], int(sys.argv[2]))
    while True:
        signal.pause()
