"""Workers' functions that notify."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import psycopg

from bgworker import spi, worker


def say(text: object) -> None:
    sys.stdout.write(f"{text}\n")


def in_turn(name: str) -> None:
    """Notify in two steps; between them, and before the commit, wait to be told by SIGUSR1."""
    worker.connect()
    worker.unblock_signals()
    with spi.transaction():
        spi.async_notify("orders", f"{name} 1")
        worker.reset_latch()
        say("notified")
        while not worker_is_told():
            pass
        spi.async_notify("orders", f"{name} 2")


def worker_is_told() -> bool:
    from bgworker._worker.runtime import current

    return current().latch.is_set


def savepoints(_arg: Any) -> None:
    connection = worker.connect()
    with spi.transaction():
        spi.async_notify("orders", "outer")
        with contextlib.suppress(ValueError), connection.transaction():
            spi.async_notify("orders", "rolled back to the savepoint")
            raise ValueError
        with connection.transaction():
            spi.async_notify("orders", "released")
            spi.async_notify("orders", "outer")


def payloads(_arg: Any) -> None:
    """Notify of what fits, and of what does not; each in a transaction of its own."""
    connection = worker.connect()
    connection.execute("SET client_min_messages = error")
    for payload in ("", "x" * 7999, "é" * 3999 + "x", "x" * 8000, "é" * 4000, "a\0b", "\udcff", "after"):
        try:
            with spi.transaction():
                spi.async_notify("orders", payload)
        except (psycopg.Error, ValueError) as error:
            say(f"{type(error).__name__} {getattr(error, 'sqlstate', None)}: {error}".splitlines()[0])
