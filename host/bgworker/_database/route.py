"""How workers and we ourselves get to a server that somebody else runs: what was found on the way, and what follows.

``url`` is for the workers' connections, ``direct_url`` for everything that needs a session of
its own: the watch, LISTEN, locks. The two are inspected each time the server has come (back)
and before anybody hears so, because no worker may start on a server that is too old, and
those behind a transaction pooler must know that they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from bgworker._database.backoff import Backoff
from bgworker._database.conninfo import Parameters
from bgworker._database.inspection import Finding, Inspection
from bgworker._database.waits import Timer, Waits
from bgworker._database.watch import next_try

#: The oldest major version that workers are started on. psycopg asks for 10; 12 is the oldest whose standbys are
#: promoted and configured as today's.
OLDEST_MAJOR: Final = 12

_POOLED_HINT: Final = "Give direct_url in [database], too: a url that leads to the server itself, or to a pooler in session mode."


class RouteOwner(Protocol):
    """Who hears what was found."""

    def route_open(self) -> None:
        """The way is known; ``Route``'s properties say how it is."""

    def route_closed(self, reason: str, when: str) -> None:
        """Workers cannot be let in; it is looked at again as said, or when the server has come back if nothing is."""

    def log(self, level: str, message: str, detail: str = "", hint: str = "") -> None:
        """Write a line to the host's log."""


@dataclass(frozen=True)
class _Way:
    #: The key of [database] that it comes from.
    key: str
    parameters: Parameters


class Route:
    """Both ways to one server.

    Args:
        waits: The process's selector.
        owner: Who hears.
        given: The parameters of ``url``.
        direct: Those of ``direct_url``, or None without one.
    """

    def __init__(self, waits: Waits, owner: RouteOwner, given: Parameters, direct: Parameters | None) -> None:
        self._waits = waits
        self._owner = owner
        self._ways = [_Way("url", given)] + ([_Way("direct_url", direct)] if direct is not None else [])
        self._backoff = Backoff(0.25, 30.0, jitter=0.25)
        self._findings: dict[str, Finding] = {}
        self._inspection: Inspection | None = None
        self._timer: Timer | None = None
        #: Lines that have been logged: each is told once in the life of this process.
        self._said: set[str] = set()

    # --- what is known; from the first time that the way was open ---

    @property
    def is_pooled(self) -> bool:
        """Whether ``url`` leads to a transaction pooler."""
        return "url" in self._findings and self._findings["url"].is_pooled

    @property
    def has_sessions(self) -> bool:
        """Whether our own connections keep their session from one transaction to the next, as LISTEN and locks need it."""
        key = self._ways[-1].key
        return key not in self._findings or not self._findings[key].is_pooled

    @property
    def detail(self) -> str:
        """What status must say about the way; empty where nothing is special."""
        if not self.is_pooled and self.has_sessions:
            return ""
        if self.has_sessions:
            return "url leads to a transaction pooler; direct_url passes it by"
        return f"{self._ways[-1].key} leads to a transaction pooler: notifications (wake_on) cannot be received"

    # --- looking ---

    def look(self) -> None:
        """Look at all ways, and call back; again and again until all have answered."""
        self.forget()
        self._look_at(0)

    def forget(self) -> None:
        """Stop looking; the server has gone."""
        if self._timer is not None:
            self._timer.cancel()
        if self._inspection is not None:
            self._inspection.end()
            self._inspection = None

    def _look_at(self, number: int) -> None:
        way = self._ways[number]

        def done(finding: Finding | None, reason: str) -> None:
            self._inspection = None
            if finding is None:
                delay = self._backoff.next()
                self._timer = self._waits.call_after(delay, self.look)
                # The watch uses the last of the ways: where there is but one, url need not be named.
                reason = reason if len(self._ways) == 1 else f"{way.key}: {reason}"
                self._owner.route_closed(reason, next_try(delay, self._backoff.failures + 1))
            elif finding.version_number < OLDEST_MAJOR * 10_000:
                self._refuse(finding)
            else:
                self._findings[way.key] = finding
                self._warn_of_pooler(way.key, finding)
                if number + 1 < len(self._ways):
                    self._look_at(number + 1)
                else:
                    self._backoff.reset()
                    self._owner.route_open()

        self._inspection = Inspection(self._waits, way.parameters, done)
        self._inspection.begin()

    def _refuse(self, finding: Finding) -> None:
        """Have no worker start. An upgrade ends our connection, which is when it is looked at again."""
        reason = f"the server is PostgreSQL {finding.version}, and the oldest that can be used is {OLDEST_MAJOR}"
        self._say(
            "ERROR",
            f"database cannot be used: {reason}",
            "No database worker is started. The host looks again when the server has been restarted.",
            "Upgrade the server, or name another one in [database] url and start the host again.",
        )
        self._owner.route_closed(reason, "")

    def _warn_of_pooler(self, key: str, finding: Finding) -> None:
        if not finding.is_pooled:
            return
        if key != self._ways[-1].key:
            self._say(
                "LOG",
                "[database] url leads to a transaction pooler; direct_url is used for LISTEN, wake_on and locks",
                "Workers connect through the pooler, without prepared statements.",
            )
            return
        self._say(
            "WARNING",
            f"[database] {key} leads to a transaction pooler: notifications (wake_on) cannot be received",
            "It gives each transaction another session of the server, so that LISTEN, advisory locks and SET last no longer "
            "than a transaction. Workers connect through it all the same, without prepared statements.",
            _POOLED_HINT,
        )

    def _say(self, level: str, message: str, detail: str = "", hint: str = "") -> None:
        if message not in self._said:
            self._said.add(message)
            self._owner.log(level, message, detail, hint)
