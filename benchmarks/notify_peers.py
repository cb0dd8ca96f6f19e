"""The processes that benchmarks/notify.py measures: a sender and a receiver, each as a worker and in plain psycopg.

Both ways run the same statements; a payload is the monotonic clock, in nanoseconds, before
the transaction that sends it.
"""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable
from typing import Any

import psycopg

from benchmarks.harness import Peer
from bgworker import spi, worker


def serve(path: str, name: str, transact: Callable[[str, str], None]) -> None:
    """Send on command: a count of notifications, each in a transaction of its own, with a pause in seconds between them."""
    peer = Peer.call(path)
    peer.tell(name=name)
    while (order := peer.hear()) is not None:
        channel, pause = order["channel"], order["pause"]
        for _ in range(order["count"]):
            if pause:
                time.sleep(pause)
            transact(channel, str(time.monotonic_ns()))
        peer.tell(done=True)


def worker_sender(path: str) -> None:
    """Commit and notify as a worker does."""
    worker.unblock_signals()
    worker.connect()

    def transact(channel: str, payload: str) -> None:
        with spi.transaction():
            spi.async_notify(channel, payload)

    serve(path, "worker sender", transact)


def plain_sender(path: str, url: str) -> None:
    """Commit and notify in plain psycopg, with the same statements."""
    connection = psycopg.connect(url, autocommit=True)

    def transact(channel: str, payload: str) -> None:
        with connection.transaction():
            connection.execute("SELECT pg_notify(%s, %s)", (channel, payload))

    serve(path, "plain sender", transact)


class Stopwatch:
    """Counts what arrives and tells the benchmark when a round is complete."""

    def __init__(self, path: str, name: str) -> None:
        self._peer = Peer.call(path)
        self._peer.tell(name=name)
        self._delays: list[int] = []

    def take(self, payload: str) -> None:
        """Note one arrival; a payload that is no number asks for what has arrived."""
        now = time.monotonic_ns()
        if payload.isdigit():
            self._delays.append(now - int(payload))
        elif payload == "report":
            self._peer.tell(delays=self._delays, at=now)
            self._delays = []


def worker_receiver(path: str) -> None:
    """Be woken by wake_on."""
    worker.unblock_signals()
    stopwatch = Stopwatch(path, "worker receiver")
    for _ in worker.latch_loop():
        for note in worker.notifications():
            if not note.may_have_missed:
                stopwatch.take(note.payload)


def arrivals(connection: psycopg.Connection[Any], poller: select.poll) -> list[str]:
    """Wait for the connection and return the payloads that have arrived; no wake-up but theirs."""
    poller.poll()
    connection.pgconn.consume_input()
    found = []
    while (note := connection.pgconn.notifies()) is not None:
        found.append(note.extra.decode())
    return found


def listener(url: str, channel: str) -> tuple[psycopg.Connection[Any], select.poll]:
    """Return a listening connection and what waits for it."""
    connection = psycopg.connect(url, autocommit=True)
    connection.execute(f"LISTEN {channel}".encode())
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN)
    return connection, poller


def plain_receiver(path: str, url: str) -> None:
    """LISTEN in plain psycopg, with a loop of its own."""
    connection, poller = listener(url, "plain_channel")
    stopwatch = Stopwatch(path, "plain receiver")
    while True:
        for payload in arrivals(connection, poller):
            stopwatch.take(payload)


if __name__ == "__main__":
    {"sender": plain_sender, "receiver": plain_receiver}[sys.argv[1]](sys.argv[2], sys.argv[3])
