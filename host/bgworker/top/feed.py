"""The thread that looks at the host: whenever something happens, and once a second.

Makes pictures and leaves the latest one; the application takes it when it has time to draw. So a
terminal at the end of a slow link skips pictures and never falls behind, and a hundred events
a second are ten pictures at most (``tui.feed`` looks no more often).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from bgworker.errors import HostError
from bgworker.top.order import Entry, entries_of
from bgworker.tui import model
from bgworker.tui.feed import Feed, Inbox, Message, Source
from bgworker.tui.figures import Meter
from bgworker.tui.health import Status
from bgworker.tui.model import View

#: Ages, activity, CPU and memory are looked at this often.
TICK_SECONDS: Final = 1.0
#: A host that has not answered yet is tried this often.
_START_SECONDS: Final = 0.1


class Picture(NamedTuple):
    """One moment of one host."""

    status: Status
    view: View
    entries: Sequence[Entry]
    #: Lines of what happened, the oldest first.
    events: Sequence[str]
    #: How the host died; empty while it runs.
    gone: str


class Pictures:
    """Looks at one host and keeps the latest picture.

    Args:
        connect: Opens a connection; raises HostError when nobody answers.
        how_it_died: Says what is known of a host that is gone.
        clock: Seconds since the epoch.
    """

    def __init__(
        self, connect: Callable[[], Source], how_it_died: Callable[[], str] = lambda: "", clock: Callable[[], float] = time.time
    ) -> None:
        self._inbox: Inbox = queue.SimpleQueue()
        self._feed = Feed(connect, self._inbox, how_it_died)
        self._meter = Meter()
        self._clock = clock
        self._lock = threading.Lock()
        self._latest: Picture | None = None
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Connect and make the first picture.

        Raises:
            HostError: Nobody answers.
        """
        self._feed.open()
        self._make()

    def follow(self, tell: Callable[[], None]) -> None:
        """Go on in a thread of its own; ``tell`` is called there when there is a picture and the last one was taken."""
        self._thread = threading.Thread(target=self._run, args=(tell,), name="pictures", daemon=True)
        self._thread.start()

    def look(self) -> None:
        """Look at the host soon: something was asked of it. Safe in any thread."""
        self._inbox.put(Message("draw"))

    def take(self) -> Picture | None:
        """Return the latest picture that was not taken yet."""
        with self._lock:
            picture, self._latest = self._latest, None
        return picture

    def close(self) -> None:
        """End the thread and the connections."""
        self._inbox.put(Message("leave"))
        if self._thread is not None:
            # A host that does not answer is waited for by the thread; it ends with the process.
            self._thread.join(timeout=1.0)
        else:
            self._feed.close()

    def _run(self, tell: Callable[[], None]) -> None:
        try:
            # A host that is being started beside us says nothing until its socket is there: looked for more often.
            while self._feed.wait(TICK_SECONDS if self._feed.status is not None else _START_SECONDS) is None:
                self._feed.refresh()
                if self._make():
                    tell()
        except (HostError, OSError):  # the descriptors ran out, or the like: the last picture stays
            self._feed.lose()
            if self._make():
                tell()
        finally:
            self._feed.close()

    def _make(self) -> bool:
        """Make a picture; whether the one before had been taken."""
        feed = self._feed
        if feed.status is None:
            return False
        now = feed.gone_at if feed.gone else self._clock()
        view = model.build(feed.status, now, fold=False, show_finished=True)
        figures = {} if feed.gone else self._meter.measure((pid for row in view.rows for pid in row.pids), now)
        picture = Picture(feed.status, view, entries_of(view.rows, figures), tuple(feed.events), feed.gone)
        with self._lock:
            was_taken, self._latest = self._latest is None, picture
        return was_taken
