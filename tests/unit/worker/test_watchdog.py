"""_worker/watchdog.py: what a worker tells its host, and how seldom."""

from __future__ import annotations

from typing import Any

import pytest

from bgworker._worker import watchdog as room
from bgworker._worker.watchdog import Watchdog


class Line:
    """A channel that keeps what is said, and a clock."""

    def __init__(self) -> None:
        self.said: list[tuple[float, str]] = []
        self.now = 100.0

    def notice(self, message: dict[str, Any]) -> None:
        """Keep what is said, and when."""
        self.said.append((self.now - 100.0, message["type"]))

    def monotonic(self) -> float:
        """Return what the clock shows."""
        return self.now


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    made = Line()
    monkeypatch.setattr(room, "time", made)
    return made


def test_without_the_key_nothing_is_said(line: Line) -> None:
    """A worker without a watchdog never speaks of its progress, and its waits are not cut short."""
    dog = Watchdog(line, None)  # type: ignore[arg-type]
    line.now += 1e6
    dog.moves()
    dog.waits()
    dog.wait_ends()
    assert (dog.until_idle(), line.said) == (None, [])


def test_progress_is_told_four_times_a_span(line: Line) -> None:
    """However often a worker says that it moves, the host hears of it every quarter of the watchdog."""
    dog = Watchdog(line, 8.0)  # type: ignore[arg-type]
    for _ in range(100):
        line.now += 0.125
        dog.moves()
    assert line.said == [(t, "moving") for t in (2.0, 4.0, 6.0, 8.0, 10.0, 12.0)]


def test_only_a_long_wait_is_told(line: Line) -> None:
    """A worker that wakes often pays nothing for its waits; of a long one the host hears once, and of its end."""
    dog = Watchdog(line, 8.0)  # type: ignore[arg-type]
    for _ in range(10):
        line.now += 0.1
        assert dog.until_idle() is not None
        dog.waits()
        dog.wait_ends()
    assert line.said == []
    line.now = 102.0
    dog.waits()
    line.now = 500.0
    dog.waits()
    dog.moves()  # another thread, while the main one still waits: it must not give the wait a deadline
    assert dog.until_idle() is None
    dog.wait_ends()
    assert line.said == [(2.0, "idle"), (400.0, "moving")]
