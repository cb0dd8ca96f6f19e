"""What is known of one host while somebody looks at it: its status, its events, and that it is gone.

Everything that can happen comes through one inbox: events of the host (from a thread that
reads them), keys, signals, the end of a host that is our child. What comes together is taken
together, so that a burst costs the host one question. Draws nothing, and knows nothing of
processes or of the command line. The live view and ``top`` each have one.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, Protocol

from bgworker.errors import HostError
from bgworker.tui.happenings import event_line
from bgworker.tui.health import Status
from bgworker.tui.words import clean

#: Two looks at the host are at least this far apart, in seconds, however many events come.
SETTLE_SECONDS: Final = 0.1
_EVENTS_KEPT: Final = 50


class Stream(Protocol):
    """Events of a host; ends by raising a HostError."""

    def __iter__(self) -> Iterator[Any]:
        """Return itself."""

    def close(self) -> None:
        """End the stream; safe in another thread than the one that reads it."""


class Source(Protocol):
    """What a view needs of a client."""

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


class Feed:
    """The facts of one host, through as many connections as it takes; for one thread at a time.

    Args:
        connect: Opens a connection; raises HostError when nobody answers.
        inbox: Where the caller's own messages arrive, ``leave`` above all.
        how_it_died: Says what is known of a host that is gone.
        notifications: Whether notifications that wake workers are events, too.
    """

    def __init__(
        self, connect: Callable[[], Source], inbox: Inbox, how_it_died: Callable[[], str], *, notifications: bool = True
    ) -> None:
        self._connect = connect
        self._inbox = inbox
        self._how_it_died = how_it_died
        self._notifications = notifications
        self._source: Source | None = None
        self._stream: Stream | None = None
        #: The last one; None until a host has answered.
        self.status: Status | None = None
        #: How the host died, in a sentence for the view; empty while it runs.
        self.gone = ""
        #: When it was found gone: no age grows after that.
        self.gone_at = 0.0
        #: Lines of what happened, the oldest first.
        self.events: deque[str] = deque(maxlen=_EVENTS_KEPT)
        #: When the lives began that began under our eyes.
        self._starts: dict[tuple[Any, Any], Any] = {}
        #: Events whose line waits for the status after them.
        self._untold: list[dict[str, Any]] = []

    @property
    def is_connected(self) -> bool:
        """Whether the status is that of a host that runs."""
        return self._source is not None

    def open(self) -> None:
        """Connect and ask for the first status.

        Raises:
            HostError: Nobody answers.
        """
        self._source = self._connect()
        try:
            self._subscribe()
            self.status = self._source.status()
        except BaseException:
            self.close()
            raise
        self.gone = ""

    def close(self) -> None:
        """End the connections."""
        for end in (self._stream, self._source):
            if end is not None:
                end.close()
        self._stream = self._source = None

    def wait(self, timeout: float | None) -> Message | None:
        """Wait for something to happen, or for the time; return a ``leave``, if one came."""
        try:
            self._take(self._inbox.get(timeout=timeout) if timeout is not None else self._inbox.get())
            # What comes together is looked at together.
            until = time.monotonic() + SETTLE_SECONDS
            while (left := until - time.monotonic()) > 0:
                self._take(self._inbox.get(timeout=left))
        except queue.Empty:
            pass
        except _Leave as leave:
            return leave.message
        return None

    def refresh(self) -> None:
        """Ask the host how it is, and tell what has happened since; a host that is back is connected to again."""
        before = self.status
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
                self.status = self._source.status()
            except (HostError, OSError):
                self.lose()
        untold, self._untold = self._untold, []
        for event in untold:
            if line := event_line(event, before, self.status, self._began(event)):
                self.events.append(line)

    def lose(self) -> None:
        """Take the host for gone."""
        self.close()
        host = (self.status or {}).get("host") or {}
        words = clean(self._how_it_died()) or "its connections ended without a word"
        self.gone_at = time.time()
        self.gone = f"{time.strftime('%H:%M:%S')} host (PID {host.get('pid', '?')}) is gone: {words}"

    def _take(self, message: Message) -> None:
        if message.kind == "leave":
            raise _Leave(message)
        if message.kind == "event":
            self._untold.append(message.value)
        elif message.kind == "gone" and message.value is self._stream:
            self._stream = None

    def _subscribe(self) -> None:
        assert self._source is not None
        self._stream = self._source.events(notifications=self._notifications)
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

    def _began(self, event: dict[str, Any]) -> Any:
        """Remember when a life began, and say so at its end."""
        life = (event.get("slot"), event.get("generation"))
        if event.get("event") == "started":
            self._starts[life] = event.get("at")
        return self._starts.pop(life, None) if event.get("event") == "exited" else None


class _Leave(Exception):  # noqa: N818 - a message on its way out of two loops
    def __init__(self, message: Message) -> None:
        super().__init__(message)
        self.message = message
