"""A server that somebody else runs: what the watch says of it, held back until the way there has been looked at.

Stands between ``watch``, ``route`` and the process: an answering server is reported only when
the route to it is open, and what goes wrong is logged, once for each reason.
"""

from __future__ import annotations

from typing import Final, Protocol

from bgworker._database.conninfo import Parameters
from bgworker._database.phases import Phase
from bgworker._database.route import Route
from bgworker._database.waits import Waits
from bgworker._database.watch import NEXT_TRY

#: How often a read-write server is asked its phase where the end of a connection is no news: behind a transaction
#: pooler without direct_url.
POOLED_INTERVAL: Final = 5.0
#: Reasons remembered in one outage, so that each is logged once; some have varying parts, and an outage can be long.
_MAX_REASONS: Final = 20

_ANSWERS: Final = {Phase.CONSISTENT: "read-only", Phase.RECOVERY_FINISHED: "read-write"}


class ExternalOwner(Protocol):
    """Who hears of the server."""

    def report(self, phase: Phase, detail: str) -> None:
        """The phase as workers may take it."""

    def ask_again_every(self, interval: float | None) -> None:
        """The watch is to ask a read-write server this often; None: never."""

    def log(self, level: str, message: str, detail: str = "", hint: str = "") -> None:
        """Write a line to the host's log."""


class ExternalServer:
    """Judges what the watch says.

    Args:
        waits: The process's selector.
        owner: Who hears.
        given: The parameters of ``url``.
        direct: Those of ``direct_url``, or None without one.
    """

    def __init__(self, waits: Waits, owner: ExternalOwner, given: Parameters, direct: Parameters | None) -> None:
        self._owner = owner
        self.route = Route(waits, self, given, direct)
        #: What the watch said last, while the server answers.
        self._answer: tuple[Phase, str] | None = None
        self._is_open = False
        #: Why it could not be reached, since it last could.
        self._reasons: set[str] = set()

    def end(self) -> None:
        """Say nothing more."""
        self._answer = None
        self._is_open = False
        self.route.forget()

    # --- the watch's news ---

    def watch_connected(self) -> None:
        """Look at the way again once the server answers; a failover may have been quicker than anybody noticed."""
        self.end()

    def watch_says(self, phase: Phase, detail: str) -> None:
        """Take the phase of the server: the news, or the beginning of an inspection."""
        if phase not in _ANSWERS:
            self.end()
            self._complain(detail)
            self._owner.report(phase, detail)
            return
        is_news = self._answer is None
        self._answer = phase, detail
        if self._is_open:
            self._report_answer()
        elif is_news:
            self.route.look()

    # --- the route's news (RouteOwner) ---

    def route_open(self) -> None:
        """Let the workers in."""
        self._is_open = True
        self._report_answer()

    def route_closed(self, reason: str, when: str) -> None:
        """Keep the workers out."""
        self._is_open = False
        if when:
            self._complain(reason)
        else:
            self._reasons.add(reason)  # the route has logged it
        self._owner.report(Phase.UNREACHABLE, reason + when)

    def log(self, level: str, message: str, detail: str = "", hint: str = "") -> None:
        """Pass a line on."""
        self._owner.log(level, message, detail, hint)

    # --- words ---

    def _report_answer(self) -> None:
        assert self._answer is not None
        phase, detail = self._answer
        if phase is Phase.RECOVERY_FINISHED:
            self._owner.ask_again_every(None if self.route.has_sessions else POOLED_INTERVAL)
        if self._reasons:
            self._reasons.clear()
            self._owner.log("LOG", f"database answers again: it is {_ANSWERS[phase]}")
        self._owner.report(phase, "; ".join(part for part in (detail, self.route.detail) if part))

    def _complain(self, detail: str) -> None:
        reason = detail.partition(NEXT_TRY)[0]
        if reason in self._reasons or len(self._reasons) >= _MAX_REASONS:
            return
        self._reasons.add(reason)
        self._owner.log(
            "WARNING",
            f"database cannot be reached: {reason}",
            "It is tried again and again, after 30 s at the most. Database workers that are to start wait until it answers.",
        )
