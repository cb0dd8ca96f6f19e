"""The loop of the live view, on a host that is a pair of lists."""

from __future__ import annotations

import io
import queue
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rich.console import Console

from bgworker.errors import HostNotRunning
from bgworker.tui import model
from bgworker.tui.feed import Inbox, Message
from bgworker.tui.live import LiveView, full_screen


class FakeStream:
    """Events put in by the test; ends as a host's do."""

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
    """A host that can die and come back; counts what it is asked."""

    def __init__(self, status: dict[str, Any]) -> None:
        self.facts = status
        self.is_up = True
        self.streams: list[FakeStream] = []
        self.asked = 0
        self.on_status: Callable[[int], None] = lambda count: None

    def connect(self) -> FakeHost:
        """Be connected to."""
        if not self.is_up:
            raise HostNotRunning("nobody answers")
        return self

    def status(self) -> dict[str, Any]:
        """Answer, unless dead."""
        self.asked += 1
        self.on_status(self.asked)
        if not self.is_up:
            raise HostNotRunning("connection to the host is gone")
        return self.facts

    def events(self, *, notifications: bool = False) -> FakeStream:
        """Open one more stream."""
        self.hears_notifications = notifications
        self.streams.append(FakeStream())
        return self.streams[-1]

    def close(self) -> None:
        """Be left."""


@pytest.fixture
def fake(shop: dict[str, Any]) -> FakeHost:
    return FakeHost(shop)


@pytest.fixture
def view_of(now: float) -> Callable[..., tuple[LiveView, Inbox, io.StringIO]]:
    """A view of a fake host, its inbox and what it drew."""

    def make(fake: FakeHost, *, is_terminal: bool = True, **options: Any) -> tuple[LiveView, Inbox, io.StringIO]:
        output = io.StringIO()
        console = Console(file=output, width=100, height=30, force_terminal=is_terminal, color_system=None, highlight=False)
        inbox: Inbox = queue.SimpleQueue()
        view = LiveView(console, fake.connect, lambda status, _now: model.build(status, now, fold=is_terminal), inbox, **options)
        view.console = console  # type: ignore[attr-defined] # for full_screen() below
        return view, inbox, output

    return make


def run(view: LiveView) -> int:
    return view.run(full_screen(view.console))  # type: ignore[attr-defined]


def test_an_event_is_drawn_and_leave_ends_it(fake: FakeHost, view_of: Any, now: float) -> None:
    """An event makes the view ask for the status at once and shows up below the table; `leave` carries the exit code out."""
    view, inbox, output = view_of(fake)
    view.open()
    fake.streams[0].incoming.put({"event": "host", "at": None, "message": "host is stopping"})
    fake.on_status = lambda count: inbox.put(Message("leave", 7)) if count == 3 else inbox.put(Message("draw"))
    assert run(view) == 7
    assert "host is stopping" in output.getvalue()
    assert "order-drain" in output.getvalue()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_notifications_are_for_a_screen(fake: FakeHost, view_of: Any, is_terminal: bool) -> None:
    """C27: what wakes workers is a line below the table on a terminal, inert; a pipe is not given a table for each."""
    view, inbox, output = view_of(fake, is_terminal=is_terminal)
    view.open()
    assert fake.hears_notifications is is_terminal
    if is_terminal:
        inbox.put(Message("event", {"event": "notify", "at": None, "channel": "orders", "message": "notify orders: 4\x1b[2J2"}))
        fake.on_status = lambda count: inbox.put(Message("leave", 0))
        run(view)
        assert "notify orders: 4" in output.getvalue()
        assert "\x1b[2J2" not in output.getvalue()


def test_a_burst_is_asked_about_once(fake: FakeHost, view_of: Any) -> None:
    """Three hundred events that come together cost the host one question, not three hundred."""
    view, inbox, _ = view_of(fake)
    view.open()
    for _ in range(300):
        inbox.put(Message("event", {"event": "host", "message": "x"}))
    fake.on_status = lambda count: inbox.put(Message("leave", 0))
    run(view)
    assert fake.asked == 2


def test_a_dead_host_leaves_its_last_table(fake: FakeHost, view_of: Any) -> None:
    """Host gone: the table stays, with how it died below it; when the host is back, so is the live table."""
    view, inbox, output = view_of(fake, how_it_died=lambda: "it was terminated by signal 9: Killed")
    view.open()

    def die(_count: int) -> None:
        fake.is_up = False
        fake.on_status = lambda count: None
        inbox.put(Message("draw"))
        inbox.put(Message("leave", 3))

    fake.on_status = die
    fake.streams[0].incoming.put(None)
    assert run(view) == 3
    assert not view.is_connected
    view.console.print(view.last_picture())
    last_table = output.getvalue().rpartition("SLOT")[2]
    assert "order-drain" in last_table
    assert "host (PID 4711) is gone: it was terminated by signal 9: Killed" in last_table


def test_a_host_that_comes_back_is_shown_again(fake: FakeHost, view_of: Any) -> None:
    """The view of a dead host connects again by itself once there is one."""
    view, _inbox, _output = view_of(fake)
    view.open()
    fake.is_up = False
    view._feed.refresh()
    assert not view.is_connected
    fake.is_up = True
    view._feed.refresh()
    assert view.is_connected
    view.close()


def test_a_closed_stream_is_opened_again(fake: FakeHost, view_of: Any) -> None:
    """A host that closes the stream of a view that lags is not taken for dead."""
    view, inbox, _ = view_of(fake)
    view.open()
    fake.streams[0].incoming.put(None)
    fake.on_status = lambda count: inbox.put(Message("leave", 0))
    run(view)
    assert len(fake.streams) == 2


def test_a_pipe_gets_a_table_after_each_event(fake: FakeHost, view_of: Any) -> None:
    """Without a terminal there are plain tables, and the end of the host is the end of the view: exit code 3."""
    view, inbox, output = view_of(fake, is_terminal=False, how_it_died=lambda: "killed")
    view.open()
    fake.streams[0].incoming.put({"event": "host", "at": None, "message": "x"})

    def die(count: int) -> None:
        if count == 3:
            fake.is_up = False
        else:
            inbox.put(Message("draw"))

    fake.on_status = die
    assert view.run() == 3
    tables = output.getvalue().split("\n\n")
    assert tables[0].startswith("bgworker  run")
    assert "export 5" in tables[0]
    assert tables[-1].endswith("is gone: killed\n")
    assert "\x1b" not in output.getvalue()


def test_a_host_that_starts_late_is_waited_for(fake: FakeHost, view_of: Any) -> None:
    """Beside a host that is being started the view says so until the host answers."""
    fake.is_up = False
    view, inbox, output = view_of(fake)
    tries = 0

    def connect() -> FakeHost:
        nonlocal tries
        tries += 1
        fake.is_up = tries > 2
        return FakeHost.connect(fake)

    view._feed._connect = connect
    fake.on_status = lambda count: inbox.put(Message("leave", 0)) if count == 2 else inbox.put(Message("draw"))
    assert run(view) == 0
    assert "starting ..." in output.getvalue()
    assert "order-drain" in output.getvalue()


def test_notes_stand_below_the_table(fake: FakeHost, view_of: Any) -> None:
    """What the caller has to say stays at the bottom."""
    view, inbox, output = view_of(fake, notes=["In another terminal: bgworker status"])
    inbox.put(Message("leave", 0))
    view.open()
    assert run(view) == 0
    assert "In another terminal" in output.getvalue()
