"""The live view's loop: waits for events, asks for status, draws.

Everything that can happen comes through one inbox: events of the host (from a thread that
reads them), keys, signals, the end of a host that is our child. Between two of them the view
waits; once a second it draws anyway, because ages grow and activity changes without an
event. Bursts of events are drawn once.

The loop knows nothing of processes or of the command line: ``cli`` hands it the functions.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple, Protocol

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from bgworker.errors import HostError
from bgworker.tui import plain
from bgworker.tui.figures import Meter
from bgworker.tui.happenings import event_line
from bgworker.tui.health import Status
from bgworker.tui.model import View
from bgworker.tui.render import columns_for, render
from bgworker.tui.words import clean

#: Ages and activity are looked at this often.
TICK_SECONDS: Final = 1.0
#: Two pictures are at least this far apart, however many events come.
_SETTLE_SECONDS: Final = 0.1
#: A host that has not answered yet is tried this often.
_START_SECONDS: Final = 0.1
_EVENTS_KEPT: Final = 50


class Stream(Protocol):
    """Events of a host; ends by raising a HostError."""

    def __iter__(self) -> Iterator[Any]:
        """Return itself."""

    def close(self) -> None:
        """End the stream; safe in another thread than the one that reads it."""


class Source(Protocol):
    """What the view needs of a client."""

    def status(self) -> Status:
        """Return the status dict."""

    def events(self, *, notifications: bool = False) -> Stream:
        """Return what happens from now on, notifications that wake workers included if they are asked for."""

    def close(self) -> None:
        """End the connection."""


class Message(NamedTuple):
    """One thing that happened: ``event``, ``gone``, ``draw`` or ``leave``."""

    kind: str
    value: Any = None


Inbox = queue.SimpleQueue[Message]  # its put() may be called by a signal handler, a Queue's may not


class LiveView:
    """One view of one host, through as many connections as it takes.

    Args:
        console: Where to draw; a terminal, or a pipe that gets a plain table after each event.
        connect: Opens a connection; raises HostError when nobody answers.
        build: Makes the rows of a status dict.
        inbox: Where the caller's own messages arrive, ``leave`` with the exit code above all.
        how_it_died: Says what is known of a host that is gone.
        notes: Lines that stand below the events all the time.
    """

    def __init__(
        self,
        console: Console,
        connect: Callable[[], Source],
        build: Callable[[Status, float], View],
        inbox: Inbox,
        how_it_died: Callable[[], str] = lambda: "",
        notes: Sequence[str] = (),
    ) -> None:
        self._console = console
        self._connect = connect
        self._build = build
        self._inbox = inbox
        self._how_it_died = how_it_died
        self._meter = Meter()
        self._source: Source | None = None
        self._stream: Stream | None = None
        self._status: Status | None = None
        self._gone = ""
        #: When it was found gone: no age grows after that.
        self._gone_at = 0.0
        self._notes = notes
        self._events: deque[str] = deque(maxlen=_EVENTS_KEPT)
        #: When the lives began that began under our eyes.
        self._starts: dict[tuple[Any, Any], Any] = {}
        #: Events whose line waits for the status after them.
        self._untold: list[dict[str, Any]] = []

    @property
    def is_connected(self) -> bool:
        """Whether the picture is of a host that runs."""
        return self._source is not None

    def open(self) -> None:
        """Connect and ask for the first status.

        Raises:
            HostError: Nobody answers.
        """
        self._source = self._connect()
        try:
            self._subscribe()
            self._status = self._source.status()
        except BaseException:
            self.close()
            raise
        self._gone = ""

    def close(self) -> None:
        """End the connections."""
        for end in (self._stream, self._source):
            if end is not None:
                end.close()
        self._stream = self._source = None

    def run(self, screen: AbstractContextManager[Live] | None = None) -> int:
        """Draw until a ``leave`` message comes and return its value.

        Args:
            screen: Where pictures go; None prints plain tables, one after each event.
        """
        try:
            if screen is None:
                return self._run_plain()
            with screen as live:
                return self._run_on(live)
        finally:
            self.close()

    def last_picture(self) -> RenderableType | None:
        """Return the last picture of a host that is gone, for the screen that is given back; None if there never was one."""
        if self._status is None:
            return None
        if self._source is not None:
            self._lose()
        return self._picture(None)

    # -- the two loops --------------------------------------------------------------

    def _run_on(self, live: Live) -> int:
        while True:
            live.update(self._picture(self._console.height), refresh=True)
            # A host that is being started beside us says nothing until its socket is there: looked for more often.
            message = self._wait(TICK_SECONDS if self._status is not None else _START_SECONDS)
            if message is not None:
                return int(message.value)
            self._refresh()

    def _run_plain(self) -> int:
        while True:
            if self._status is not None:
                self._console.file.write("\n".join(plain.lines(self._build(self._status, time.time()))) + "\n\n")
                self._console.file.flush()
            message = self._wait(None)
            if message is not None:
                return int(message.value)
            self._refresh()
            if self._gone:
                # Nothing will change any more, and a pipe is no place to wait for a host to come back.
                self._console.file.write(f"{self._gone}\n")
                return 3

    def _wait(self, timeout: float | None) -> Message | None:
        """Wait for something to happen, or for the time; return a ``leave``, if one came."""
        try:
            self._take(self._inbox.get(timeout=timeout) if timeout is not None else self._inbox.get())
            # What comes together is drawn together.
            until = time.monotonic() + _SETTLE_SECONDS
            while (left := until - time.monotonic()) > 0:
                self._take(self._inbox.get(timeout=left))
        except queue.Empty:
            pass
        except _Leave as leave:
            return leave.message
        return None

    def _take(self, message: Message) -> None:
        if message.kind == "leave":
            raise _Leave(message)
        if message.kind == "event":
            self._untold.append(message.value)
        elif message.kind == "gone" and message.value is self._stream:
            self._stream = None

    # -- facts ----------------------------------------------------------------------

    def _subscribe(self) -> None:
        assert self._source is not None
        # A pipe gets a whole table after each event: what wakes workers is no reason for one.
        self._stream = self._source.events(notifications=self._console.is_terminal)
        threading.Thread(target=self._follow, args=(self._stream,), daemon=True).start()

    def _follow(self, stream: Stream) -> None:
        """Hand on events until there are no more; runs in a thread of its own."""
        try:
            for event in stream:
                self._inbox.put(Message("event", event))
        except (HostError, OSError):
            pass  # the next question to the host tells whether it is gone, or just this stream
        stream.close()
        self._inbox.put(Message("gone", stream))

    def _refresh(self) -> None:
        before = self._status
        if self._source is None:
            # Here is where a host that comes back is noticed. The view wakes up once a second anyhow.
            try:
                self.open()
            except (HostError, OSError):
                return
        else:
            try:
                if self._stream is None:
                    self._subscribe()
                self._status = self._source.status()
            except (HostError, OSError):
                self._lose()
        untold, self._untold = self._untold, []
        for event in untold:
            if line := event_line(event, before, self._status, self._began(event)):
                self._events.append(line)

    def _began(self, event: dict[str, Any]) -> Any:
        """Remember when a life began, and say so at its end."""
        life = (event.get("slot"), event.get("generation"))
        if event.get("event") == "started":
            self._starts[life] = event.get("at")
        return self._starts.pop(life, None) if event.get("event") == "exited" else None

    def _lose(self) -> None:
        self.close()
        host = (self._status or {}).get("host") or {}
        words = clean(self._how_it_died()) or "its connections ended without a word"
        self._gone_at = time.time()
        self._gone = f"{time.strftime('%H:%M:%S')} host (PID {host.get('pid', '?')}) is gone: {words}"

    def _picture(self, height: int | None) -> RenderableType:
        if self._status is None:
            return Text("bgworker  starting ...")
        now, width = self._gone_at if self._gone else time.time(), self._console.width
        view = self._build(self._status, now)
        optional = columns_for(width).optional
        pids = [pid for row in view.rows for pid in row.pids] if optional & {"CPU", "MEM"} and not self._gone else []
        figures = self._meter.measure(pids, now)
        return render(view, width, height, figures, list(self._events), self._gone, () if self._gone else self._notes)


class _Leave(Exception):  # noqa: N818 - a message on its way out of two loops
    def __init__(self, message: Message) -> None:
        super().__init__(message)
        self.message = message


def full_screen(console: Console) -> Live:
    """Return the alternate screen of a terminal, drawn on when told to and at no other time."""
    return Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
