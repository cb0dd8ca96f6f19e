"""What can be seen of notify_demo without a host: its registrations, and its loops on stand-ins for the faces."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import importlib_metadata
import pytest

import notify_demo
from bgworker import BackgroundWorker


class Faces:
    """Stands in for ``worker``, ``spi`` and ``aio``: a loop of so many turns, and what happened in it."""

    WL_TIMEOUT = 8

    def __init__(self, turns: int, notifications: list[list[str]] | None = None) -> None:
        self.calls: list[Any] = []
        self.activity: list[tuple[str, str]] = []
        self._turns = turns
        self._notifications = notifications or []
        self._in_transaction = False

    def unblock_signals(self) -> None:
        """Note it."""
        self.calls.append("unblock_signals")

    def connect(self) -> None:
        """Note it."""
        self.calls.append("connect")

    def report_activity(self, state: str, text: str) -> None:
        """Note it."""
        self.activity.append((state, text))

    def latch_loop(self, timeout: float) -> Iterator[int]:
        """Turn so many times; outside of a transaction only."""
        self.calls.append(timeout)
        for turn in range(self._turns):
            assert not self._in_transaction
            yield self.WL_TIMEOUT if turn else 0

    def notifications(self) -> list[Any]:
        """Give the next batch."""
        return [SimpleNamespace(channel="heartbeat", payload=payload) for payload in self._notifications.pop(0)]

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Allow notifications."""
        self._in_transaction = True
        yield
        self._in_transaction = False
        self.calls.append("commit")

    def async_notify(self, channel: str, payload: str) -> None:
        """Note it."""
        assert self._in_transaction
        self.calls.append((channel, json.loads(payload)))


class AsyncFaces(Faces):
    """The same for an async worker."""

    async def latch_loop(self, timeout: float) -> AsyncIterator[int]:  # type: ignore[override]
        """Turn so many times."""
        for turn in super().latch_loop(timeout):
            yield turn


@pytest.fixture
def _no_tally() -> Iterator[None]:
    notify_demo._tally.clear()
    yield
    notify_demo._tally.clear()


def test_heartbeat_notifies_at_each_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """C26: each beat is one notification in a transaction of its own, with a count and the worker's pid."""
    faces = Faces(turns=2)
    monkeypatch.setattr(notify_demo, "worker", faces)
    monkeypatch.setattr(notify_demo, "spi", faces)
    notify_demo.heartbeat_main({"every": 0.5})
    beats = [("heartbeat", {"count": count, "pid": os.getpid()}) for count in (1, 2)]
    assert faces.calls == ["unblock_signals", "connect", 0.5, beats[0], "commit", beats[1], "commit"]
    assert faces.activity[-1] == ("idle", "beat 2")


def test_listener_shows_what_it_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """C27: one wake-up may bring several notifications, or none; what is no beat is not counted."""
    beat = json.dumps({"count": 7, "pid": 12})
    faces = Faces(turns=4, notifications=[[], ["", "null", "[1]", "{}"], [beat, beat], []])
    monkeypatch.setattr(notify_demo, "worker", faces)
    notify_demo.listener_main({"patience": 10})
    assert [text for _state, text in faces.activity] == [
        "nothing heard yet",
        "0 heard, none for 10 s",
        "beat 7 of pid 12, 2 heard",
        "2 heard, none for 10 s",
    ]


def test_counter_is_async(monkeypatch: pytest.MonkeyPatch) -> None:
    """An async def function is a worker too."""
    faces = AsyncFaces(turns=3)
    monkeypatch.setattr(notify_demo, "aio", faces)
    asyncio.run(notify_demo.counter_main({"every": 1}))
    assert faces.activity[-1] == ("idle", "counted to 3")


def test_ready_registers_what_is_absent() -> None:
    """C03: the hook registers two dynamic workers, and none twice."""
    registered: dict[str, BackgroundWorker] = {}

    class Host:
        def register_dynamic_background_worker(self, worker: BackgroundWorker, if_absent: bool = False) -> None:
            assert if_absent
            registered[worker.bgw_name] = worker

    notify_demo.bgworker_ready(Host())
    assert list(registered) == ["notify_demo listener", "notify_demo counter"]
    assert registered["notify_demo listener"].wake_on == ("heartbeat",)
    for worker in registered.values():
        assert worker.bgw_library_name == "notify_demo"
        assert callable(getattr(notify_demo, worker.bgw_function_name))


@pytest.mark.usefixtures("_no_tally")
def test_events_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """The hook logs starts and exits, and ignores what it does not know."""
    caplog.set_level(logging.INFO)
    for kind in ("started", "state", "exited", "started", "something new"):
        notify_demo.bgworker_event({"event": kind, "message": f"it {kind}"})
    assert caplog.messages == [
        "notify_demo: it started (starts: 1, exits: 0)",
        "notify_demo: it exited (starts: 1, exits: 1)",
        "notify_demo: it started (starts: 2, exits: 1)",
    ]


def test_entry_points() -> None:
    """The installed distribution offers the plugin, the heartbeat and the command."""
    points = importlib_metadata.distribution("bgworker-notify-demo").entry_points
    assert {(point.group, point.name, point.value) for point in points} == {
        ("bgworker.plugins", "notify_demo", "notify_demo"),
        ("bgworker.workers", "heartbeat", "notify_demo:heartbeat_main"),
        ("bgworker.commands", "notify-demo", "notify_demo.cli:group"),
    }
