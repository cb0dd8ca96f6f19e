"""cli/_dev.py apart from a host: which changes matter, and a stream of events that the host has closed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bgworker.cli._dev import _Watch
from bgworker.errors import HostError, HostNotRunning, WaitTimeout


class Stream:
    """Events, then an error."""

    def __init__(self, *events: dict[str, str], end: Exception) -> None:
        self._events, self._end = list(events), end
        self.is_closed = False

    def next_event(self, timeout: float) -> dict[str, str]:
        """As EventStream.next_event()."""
        assert timeout == 0
        if self._events:
            return self._events.pop(0)
        raise self._end

    def close(self) -> None:
        """As EventStream.close()."""
        self.is_closed = True


def a_watch(*streams: Stream, **names: Any) -> Any:
    pending = iter(streams)
    return _Watch(SimpleNamespace(events=lambda: next(pending)), SimpleNamespace(**names), -1, SimpleNamespace())  # type: ignore[arg-type]


def test_new_lives_are_noticed() -> None:
    """Only a start may bring another library."""
    quiet = WaitTimeout("nothing")
    assert a_watch(Stream({"event": "exited"}, {"event": "started"}, end=quiet))._has_new_lives()
    assert not a_watch(Stream({"event": "exited"}, end=quiet))._has_new_lives()


def test_closed_stream_is_opened_again() -> None:
    """A host that lives has lost patience with a reader who waited for a reload; one that is gone ends the watch."""
    first, second = Stream(end=HostError("host closed the stream of events")), Stream(end=HostNotRunning("gone"))
    watch = a_watch(first, second)
    assert watch._has_new_lives()
    assert first.is_closed
    with pytest.raises(HostNotRunning):
        watch._has_new_lives()


def test_changes_that_matter(tmp_path: Path) -> None:
    """Python, TOML and new folders of a library; not what editors leave beside it, logs, or folders of anybody else."""
    (tmp_path / "shop" / "new").mkdir(parents=True)
    (tmp_path / "shop" / "__pycache__").mkdir()
    (tmp_path / "data").mkdir()
    changes = {(1, name) for name in ("a.py", "a.py~", ".a.py.swp", "x.toml", "log.txt", "data")} | {(9, "b.py")}
    changes |= {(2, name) for name in ("new", "__pycache__", "")}
    watch = a_watch(Stream(end=HostNotRunning("gone")), changes=lambda: changes)
    watch._directories = {1: str(tmp_path), 2: str(tmp_path / "shop")}
    watch._paths = {"w": str(tmp_path / "shop")}
    assert watch._take_changes()
    assert watch._pending == {str(tmp_path / name) for name in ("a.py", "x.toml", "shop/new")}
    assert watch._directories == {1: str(tmp_path)}


def test_too_many_changes_are_all_changes() -> None:
    """What the kernel could not tell is found by looking."""
    watch = a_watch(Stream(end=HostNotRunning("gone")), changes=lambda: None)
    assert watch._take_changes()
    assert watch._is_all_pending
