"""The live view's loop: waits for events, asks for status, draws.

What happens comes through the inbox of a ``Feed``, which also knows the host. Between two of
them the view waits; once a second it draws anyway, because ages grow and activity changes
without an event. Bursts of events are drawn once.

The loop knows nothing of processes or of the command line: ``cli`` hands it the functions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from bgworker.tui import plain
from bgworker.tui.feed import Feed, Inbox, Source
from bgworker.tui.figures import Meter
from bgworker.tui.health import Status
from bgworker.tui.model import View
from bgworker.tui.render import columns_for, render

#: Ages and activity are looked at this often.
TICK_SECONDS: Final = 1.0
#: A host that has not answered yet is tried this often.
_START_SECONDS: Final = 0.1


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
        self._build = build
        self._meter = Meter()
        self._notes = notes
        # A pipe gets a whole table after each event: what wakes workers is no reason for one.
        self._feed = Feed(connect, inbox, how_it_died, notifications=console.is_terminal)

    @property
    def is_connected(self) -> bool:
        """Whether the picture is of a host that runs."""
        return self._feed.is_connected

    def open(self) -> None:
        """Connect and ask for the first status.

        Raises:
            HostError: Nobody answers.
        """
        self._feed.open()

    def close(self) -> None:
        """End the connections."""
        self._feed.close()

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
        if self._feed.status is None:
            return None
        if self._feed.is_connected:
            self._feed.lose()
        return self._picture(None)

    # -- the two loops --------------------------------------------------------------

    def _run_on(self, live: Live) -> int:
        while True:
            live.update(self._picture(self._console.height), refresh=True)
            # A host that is being started beside us says nothing until its socket is there: looked for more often.
            message = self._feed.wait(TICK_SECONDS if self._feed.status is not None else _START_SECONDS)
            if message is not None:
                return int(message.value)
            self._feed.refresh()

    def _run_plain(self) -> int:
        while True:
            if self._feed.status is not None:
                self._console.file.write("\n".join(plain.lines(self._build(self._feed.status, time.time()))) + "\n\n")
                self._console.file.flush()
            message = self._feed.wait(None)
            if message is not None:
                return int(message.value)
            self._feed.refresh()
            if self._feed.gone:
                # Nothing will change any more, and a pipe is no place to wait for a host to come back.
                self._console.file.write(f"{self._feed.gone}\n")
                return 3

    def _picture(self, height: int | None) -> RenderableType:
        if self._feed.status is None:
            return Text("bgworker  starting ...")
        now, width = self._feed.gone_at if self._feed.gone else time.time(), self._console.width
        view = self._build(self._feed.status, now)
        optional = columns_for(width).optional
        pids = [pid for row in view.rows for pid in row.pids] if optional & {"CPU", "MEM"} and not self._feed.gone else []
        figures = self._meter.measure(pids, now)
        return render(
            view, width, height, figures, list(self._feed.events), self._feed.gone, () if self._feed.gone else self._notes
        )


def full_screen(console: Console) -> Live:
    """Return the alternate screen of a terminal, drawn on when told to and at no other time."""
    return Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
