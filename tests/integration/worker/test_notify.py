"""NOTIFY by workers, heard by an ordinary session of a real server (C26)."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from tests.integration.worker.driving import Life, PlayedHost
from tests.integration.worker.server import Server

from bgworker._spec import DATABASE_WORKER_FLAGS


@pytest.fixture
def heard(server: Server) -> Iterator[Any]:
    """Return a function that gives the payloads heard up to one that the test itself sends."""
    with server.connect() as listener:
        listener.execute("LISTEN orders")

        def payloads() -> list[str]:
            server.run("NOTIFY orders, 'the end'")
            found = []
            for notification in listener.notifies(timeout=20):
                if notification.payload == "the end":
                    return found
                found.append(notification.payload)
            raise AssertionError(f"only heard {found}")

        yield payloads


@pytest.fixture
def start(host: PlayedHost, database: dict[str, Any]) -> Any:
    """Start a database worker of notifyfunctions."""

    def start(function: str, arg: Any = None) -> Life:
        return host.start(function, arg, library="notifyfunctions", bgw_flags=DATABASE_WORKER_FLAGS, database=database)

    return start


def test_order_is_that_of_the_commits(start: Any, heard: Any) -> None:
    """C26: of two workers the one that commits first is heard first, each with all of its transaction, whoever notified first."""
    first, second = start("in_turn", "first"), start("in_turn", "second")
    first.read_until("notified")
    second.read_until("notified")
    second.signal(signal.SIGUSR1)
    assert second.wait() == 0, second.read("err")
    first.signal(signal.SIGUSR1)
    assert first.wait() == 0, first.read("err")
    assert heard() == ["second 1", "second 2", "first 1", "first 2"]


def test_savepoint_takes_its_notifications_back(start: Any, heard: Any) -> None:
    """C26, T72: what is rolled back to a savepoint is not delivered; equal ones count once across released ones."""
    life = start("savepoints")
    assert life.wait() == 0, life.read("err")
    assert heard() == ["outer", "released"]


def test_payloads_up_to_the_limit(start: Any, heard: Any) -> None:
    """C26, T73: 7999 bytes pass, 8000 are the server's own error before any commit, and so is what is no text."""
    life = start("payloads")
    assert life.wait() == 0, life.read("err")
    assert heard() == ["", "x" * 7999, "é" * 3999 + "x", "after"]
    errors = life.read("out").splitlines()
    assert errors[:2] == ["InvalidParameterValue 22023: payload string too long"] * 2
    assert errors[2].startswith("DataError None: PostgreSQL text fields cannot contain NUL")
    assert errors[3].startswith("UnicodeEncodeError None: ")
    assert len(errors) == 4
