"""Signals at random moments: whatever they hit, the outcome is the one that is promised."""

from __future__ import annotations

import random
import select
import signal
import time
from typing import Any

import pytest
from tests.integration.worker.driving import Deadline, Life, PlayedHost
from tests.integration.worker.server import Server

from bgworker._shm.layout import InconsistentTable
from bgworker._spec import DATABASE_WORKER_FLAGS

FATAL = 'FATAL:  terminating background worker "tested" due to administrator command\n'


def serve_until_exit(life: Life, answer: dict[str, Any], signal_at: float) -> None:
    """Answer every request until the worker has gone; send SIGTERM at its moment."""
    deadline = Deadline("the worker's exit")
    is_sent = False
    while deadline.left:
        if not is_sent and time.monotonic() >= signal_at:
            life.signal(signal.SIGTERM)
            is_sent = True
        wait = 0.05 if is_sent else max(signal_at - time.monotonic(), 0)
        if select.select([life.channel], [], [], wait)[0]:
            try:
                request = life.receive()
                life.send({"id": request["id"], "result": answer})
            except (AssertionError, OSError):
                return  # it has gone


@pytest.mark.parametrize("seed", range(30))
def test_sigterm_anywhere_in_the_runtime(host: PlayedHost, seed: int) -> None:
    """C22: SIGTERM in the middle of any face ends with code 1 and the FATAL line alone, and tears no record."""
    moment = random.Random(seed)
    life = host.start("everything_at_once")
    life.read_until("ready")
    serve_until_exit(life, {"settings": {}}, time.monotonic() + moment.random() * 0.02)
    assert life.wait() == 1
    assert life.read("err") == FATAL
    try:
        life.activity()
    except InconsistentTable:
        pytest.fail("the activity record is torn")


@pytest.mark.parametrize("seed", range(30))
def test_sigterm_anywhere_in_transactions(host: PlayedHost, server: Server, database: dict[str, Any], seed: int) -> None:
    """C22: SIGTERM at any moment of a loop of transactions leaves none torn."""
    moment = random.Random(seed)
    server.run("CREATE TABLE IF NOT EXISTS pairs (backend int, txid bigint)")
    life = host.start("pairs", library="dbfunctions", database=database, bgw_flags=DATABASE_WORKER_FLAGS)
    life.read_until("ready")
    time.sleep(moment.random() * 0.02)  # the moment is what is tried
    life.signal(signal.SIGTERM)
    assert life.wait() == 1
    assert life.read("err") == FATAL
    assert server.value("SELECT count(*) FROM (SELECT txid FROM pairs GROUP BY txid HAVING count(*) <> 2) torn") == 0
    server.run("TRUNCATE pairs")


def test_sigint_storm_leaves_the_connection_in_step(host: PlayedHost, database: dict[str, Any]) -> None:
    """C22: hundreds of SIGINT during hundreds of queries cancel some, and no answer is taken for another query's."""
    life = host.start("count_cancels", library="dbfunctions", database=database, bgw_flags=DATABASE_WORKER_FLAGS)
    life.read_until("ready")
    moment = random.Random(1)
    deadline = Deadline("the end of the queries", 60)
    while deadline.left and not life.is_gone(moment.random() * 0.006):
        life.signal(signal.SIGINT)
    assert life.wait() == 0, life.read("err")
    assert life.read("out").endswith("over True\n")
