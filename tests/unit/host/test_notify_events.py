"""Notifications as events: for those who asked, inert, short and few."""

from __future__ import annotations

from typing import Any

from bgworker._control.protocol import decode
from bgworker._host.callers import Caller, Callers
from bgworker._host.notify_events import MAX_PER_SECOND, MAX_SHOWN, NotifyEvents


class FakeConnection:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def send_line(self, line: bytes) -> None:
        """Keep it."""
        self.events.append(decode(line))


def subscriber(callers: Callers, *, overhears: bool) -> FakeConnection:
    """Subscribe one more caller."""
    connection = FakeConnection()
    caller = Caller(connection, 1, is_subscribed=True)  # type: ignore[arg-type]
    callers.add(caller)
    callers.overhear(caller, overhears)
    return connection


def test_only_who_asked_is_told() -> None:
    """C27: a notification is an event for subscribers that asked for it."""
    callers = Callers()
    asked, plain = subscriber(callers, overhears=True), subscriber(callers, overhears=False)
    NotifyEvents(callers, lambda: 0.0).heard("shop", "orders", "42")
    assert plain.events == []
    (event,) = asked.events
    event.pop("at")
    assert event == {
        "event": "notify", "database": "shop", "channel": "orders", "payload": "42", "untold": 0, "message": "notify orders: 42"
    }  # fmt: skip


def test_payload_is_inert_and_short() -> None:
    """T61: no control character of a payload reaches a terminal, and no more of it than a line holds."""
    callers = Callers()
    asked = subscriber(callers, overhears=True)
    events = NotifyEvents(callers, lambda: 0.0)
    events.heard("", "or\nders", "\x1b[31m" + "x" * 8000)
    events.heard("", "orders", "")
    assert "\x1b" not in asked.events[0]["message"]
    assert "\n" not in asked.events[0]["message"]
    assert len(asked.events[0]["payload"]) == MAX_SHOWN
    assert asked.events[1]["message"] == "notify orders"


def test_flood_is_counted() -> None:
    """C27: of ten thousand in a second a few are told, and the next one in another second says how many were not."""
    callers, now = Callers(), 5.0
    asked = subscriber(callers, overhears=True)
    events = NotifyEvents(callers, lambda: now)
    for number in range(10_000):
        events.heard("", "a", str(number))
    assert len(asked.events) == MAX_PER_SECOND
    now = 6.0
    events.heard("", "a", "last")
    assert asked.events[-1]["untold"] == 10_000 - MAX_PER_SECOND
    assert asked.events[-1]["message"] == f"notify a: last ({10_000 - MAX_PER_SECOND} more before it)"
