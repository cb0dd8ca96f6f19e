"""The soak's workers: put beside its workers.toml as a plain module.

Each takes a lock in its own name while it runs, without waiting: who finds it held runs a
second time, and that is written down as a violation. The kernel gives the lock back whatever
way the holder ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import sys
from collections.abc import Iterator
from typing import Any

from bgworker import spi, worker

HERE = os.path.dirname(os.path.abspath(__file__))


def _append(name: str, line: str) -> None:
    fd = os.open(os.path.join(HERE, name), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.write(fd, line.encode() + b"\n")
    os.close(fd)


@contextlib.contextmanager
def only_one(key: str | None = None) -> Iterator[None]:
    """Say that this worker runs, and that no other process runs it."""
    key = key or worker.my_bgworker_entry().bgw_name
    fd = os.open(os.path.join(HERE, "locks", key.replace("/", "_")), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _append("violations", f"{key} runs twice: process {os.getpid()} found another")
    yield
    os.close(fd)


def steady(_arg: Any) -> None:
    """Do nothing, for ever, as a worker should."""
    with only_one():
        worker.unblock_signals()
        for _ in worker.latch_loop(timeout=1.0, wait_event="Soak"):
            worker.report_activity("idle", "steady")


def stubborn(_arg: Any) -> None:
    """Never unblock a signal: only SIGKILL ends this one."""
    with only_one():
        while True:
            worker.wait_latch(timeout=5.0, events=worker.WL_LATCH_SET | worker.WL_TIMEOUT)
            worker.reset_latch()


def exiter(arg: Any) -> None:
    """Live for a moment, then leave in one of many ways."""
    with only_one():
        worker.unblock_signals()
        worker.wait_latch(timeout=random.random() * 0.5)
        way = random.choice(["exit 1", "exit 3", "raise", "abort", "kill"])
        if way == "raise":
            raise RuntimeError("soak")
        if way == "abort":
            os.abort()
        if way == "kill":
            os.kill(os.getpid(), 9)
        sys.exit(int(way.split()[1]))


def job(key: str) -> None:
    """Run once and be done; a second run of one registration is a violation, even a later one."""
    with only_one(key):
        _append("jobs", key)
        worker.unblock_signals()
        worker.wait_latch(timeout=random.random() * 0.3)


def sitter(key: str) -> None:
    """Stay until told to go."""
    with only_one(key):
        worker.unblock_signals()
        for _ in worker.latch_loop():
            pass


def chatter(_arg: Any) -> None:
    """Number every line, so that a lost one is missed, and end it, so that one torn by a full disk is not taken for another."""
    with only_one():
        worker.unblock_signals()
        for number, _ in enumerate(worker.latch_loop(timeout=0.02), 1):
            print(f"line {os.getpid()} {number}.", flush=True)  # noqa: T201


def writer(_arg: Any) -> None:
    """Commit one row after another; a row and its notification belong together."""
    with only_one():
        worker.unblock_signals()
        worker.connect()
        with spi.transaction():
            spi.execute("CREATE TABLE IF NOT EXISTS soak (id bigserial PRIMARY KEY, pid int, number int)")
        for number, _ in enumerate(worker.latch_loop(timeout=0.2), 1):
            with spi.transaction():
                spi.execute("INSERT INTO soak (pid, number) VALUES (%s, %s)", (os.getpid(), number))
                spi.async_notify("soak", str(number))
                spi.execute("DELETE FROM soak WHERE id < (SELECT max(id) - 10000 FROM soak)")


def waker(_arg: Any) -> None:
    """Be woken by what the writer commits."""
    with only_one():
        worker.unblock_signals()
        heard = 0
        for _ in worker.latch_loop(timeout=None):
            heard += len(worker.notifications())
            worker.report_activity("idle", f"heard {heard}")
