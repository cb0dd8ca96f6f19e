"""A host that is a dictionary, and the application in front of it, without a terminal."""

from __future__ import annotations

import asyncio
import os
import queue
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from textual.events import Key
from textual.keys import _character_to_key
from textual.pilot import Pilot

from bgworker.errors import HostError, HostNotRunning
from bgworker.testing import DEADLINE
from bgworker.top.app import Top
from bgworker.top.doors import Doors
from bgworker.top.feed import Pictures

NOW = 1_763_000_000.0


def rfc3339(at: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def slot(number: int, name: str, *, state: str = "started", age: float = 100.0, **keys: Any) -> dict[str, Any]:
    """One slot of status."""
    return {
        "slot": number,
        "generation": 1,
        "bgw_name": name,
        "bgw_type": name,
        "bgw_restart_time": 5.0,
        "state": state,
        # No process of ours has such a pid: figures are none.
        "pid": 2**22 + number if state == "started" else None,
        "origin": "static",
        "restarts": 0,
        "started_at": rfc3339(NOW - age) if state == "started" else None,
        "restart_at": rfc3339(NOW + 9) if state == "waiting_restart" else None,
        "last_exit": None,
        "activity": {"state": "idle", "text": "", "wait_event": f"{name}Main"},
        "reason": "",
        **keys,
    }


def status(*slots: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """A status with these slots."""
    host = {"pid": 4711, "state": "run", "started_at": rfc3339(NOW - 3600), "data_directory": "/srv/shop/data"}
    return {"host": {**host, "max_worker_processes": 64, "crash_count": 0, "database": None}, "slots": list(slots), **keys}


class FakeStream:
    """Events put in by the test."""

    def __init__(self) -> None:
        self.incoming: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def __iter__(self) -> Iterator[Any]:
        while (event := self.incoming.get()) is not None:
            yield event
        raise HostNotRunning("connection to the host is gone")

    def close(self) -> None:
        """End."""
        self.incoming.put(None)


class FakeHost:
    """Answers from a dictionary; writes down what it is asked to do."""

    def __init__(self) -> None:
        self.facts = status(slot(0, "keeper"), slot(1, "export", age=50), slot(2, "mail", age=10))
        self.is_up = True
        self.stream = FakeStream()
        self.asked = 0
        self.done: list[tuple[Any, ...]] = []
        self.refusal: HostError | None = None

    def connect(self) -> FakeHost:
        """Be connected to."""
        if not self.is_up:
            raise HostNotRunning("nobody answers", "It is down.", "Start it.")
        return self

    def status(self) -> dict[str, Any]:
        """Answer, unless dead."""
        self.asked += 1
        self.connect()
        return self.facts

    def events(self, *, notifications: bool = False) -> FakeStream:
        """Open a stream."""
        self.stream = FakeStream()
        return self.stream

    def close(self) -> None:
        """Be left."""

    def _do(self, *what: Any) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.done.append(what)

    def start(self, name: object) -> None:
        """Be asked."""
        self._do("start", name)

    def restart(self, name: object) -> None:
        """Be asked."""
        self._do("restart", name)

    def terminate(self, name: object, *, by_operator: bool = False) -> None:
        """Be asked."""
        self._do("terminate", name, by_operator)

    def signal(self, name: object, signal: str | int) -> None:
        """Be asked."""
        self._do("signal", name, signal)

    def scale(self, name: str, count: int) -> None:
        """Be asked."""
        self._do("scale", name, count)


class View:
    """The application under a pilot."""

    def __init__(self, app: Top, pilot: Pilot[int], host: FakeHost, pictures: Pictures) -> None:
        self.app, self.pilot, self.host, self.pictures = app, pilot, host, pictures

    async def press(self, *keys: str) -> None:
        """Type."""
        await self.pilot.press(*keys)

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Wait until this is so."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"waited in vain for {what or condition}; the screen is\n{self.screen()}")
            await asyncio.sleep(0.01)

    async def type_ahead(self, text: str) -> None:
        """Type characters that all arrive at once."""
        for character in text:
            self.app.post_message(Key(_character_to_key(character), character))
        await self.pilot.pause()

    async def leave(self) -> None:
        """Type q and wait for the end; the pilot's own press would wait for a screen that there is no more."""
        self.app.simulate_key("q")
        await self.until(lambda: self.app.return_value is not None, "the end")

    async def look(self) -> None:
        """See to it that the application has looked at the host and shown what it saw."""
        await self.pilot.pause()
        asked = self.host.asked
        self.pictures.look()
        await self.until(lambda: self.host.asked > asked or self.app.gone, "a look at the host")
        await self.until(lambda: self.pictures._latest is None, "a picture that is taken")
        await self.pilot.pause()

    def screen(self) -> str:
        """Return what stands on the screen, as text."""
        return "\n".join(
            "".join(segment.text for segment in strip) for strip in self.app.screen._compositor.render_strips(self.app.screen.size)
        )

    def names(self) -> list[str]:
        """Return the names in the table, from top to bottom."""
        from bgworker.top.table import Workers

        # A dialog may stand above the table; that is in the first screen.
        return [entry.row.name for entry in self.app.screen_stack[0].query_one(Workers).entries]


Script = Callable[[View], Awaitable[None]]


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def show(host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a script of keys and looks in front of the application."""
    (tmp_path / "log" / "workers").mkdir(parents=True)
    # The application takes NO_COLOR out of the environment; the test's own is put back.
    monkeypatch.setattr(os, "environ", os.environ.copy())

    def explain(name: str, facts: dict[str, Any]) -> Sequence[str]:
        return [f"why {name} is so [/bold]", "  Traceback \x1b[31m[red]"]

    def run(script: Script, size: tuple[int, int] = (100, 30)) -> None:
        async def main() -> None:
            pictures = Pictures(host.connect, lambda: "it was killed", clock=lambda: NOW)
            pictures.open()
            app = Top(Doors(pictures, host.connect, str(tmp_path), explain))
            async with app.run_test(size=size) as pilot:
                await pilot.pause()
                await script(View(app, pilot, host, pictures))

        asyncio.run(main())

    return run
