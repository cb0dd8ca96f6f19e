"""The watch: one connection that knows the server's phase.

While the server is away or still starting, it is tried again and again with growing delays.
On a standby it is asked twice a second whether it has been promoted: PostgreSQL tells
nobody. Once it is read-write the connection just stays open, and the end of it is the news - a
shutdown, a crash, a failover or a dead network (TCP's keepalives).

One thing ends no connection: a server whose processes hang while its machine lives, because the
kernel answers keepalives for them. So a server of somebody else's is asked itself as often as
its connection is probed anyway (``keepalives_idle``), which also finds one that has become a
standby behind a proxy. The embedded server is the host's own child and is not asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bgworker._database.backoff import Backoff
from bgworker._database.conninfo import Parameters, keepalive, without_secrets
from bgworker._database.phases import Phase
from bgworker._database.session import STATEMENT_TIMEOUT, Outcome, Session
from bgworker._database.waits import Timer, Waits

#: How often a standby is asked whether it has been promoted; RecoveryFinished workers start within a second of it (C07).
STANDBY_INTERVAL: Final = 0.5
#: A lost connection that is back within this time (somebody terminated just ours) is no change of phase.
RECONNECT_GRACE: Final = 0.25
#: Least delay before our own statements are tried again: they fail for reasons that stay a while (disk full, no permission).
STATEMENT_RETRY: Final = 1.0

#: What follows the reason in a detail.
NEXT_TRY: Final = "; next try in "

_IN_RECOVERY: Final = b"SELECT pg_catalog.pg_is_in_recovery()"
_DUPLICATE_DATABASE: Final = "42P04"


@dataclass(frozen=True)
class Pace:
    """How a kind of server is waited for."""

    backoff: Backoff
    #: What it means that it does not answer.
    when_silent: Phase
    #: Detail for that, from the reason, the delay and the number of the next try.
    describe: Callable[[str, float, int], str]
    #: Looked at before each connection; False counts as no answer.
    is_open: Callable[[], bool] = lambda: True


def external_pace() -> Pace:
    """Return the pace for a server that somebody else runs: patient, and spread out when it comes back."""
    return Pace(
        Backoff(0.25, 30.0, jitter=0.25),
        Phase.UNREACHABLE,
        lambda reason, delay, number: reason + next_try(delay, number),
    )


def embedded_pace(is_open: Callable[[], bool]) -> Pace:
    """Return the pace for a server of ours that is known to run: it answers any moment now."""
    return Pace(Backoff(0.005, 0.1, jitter=0.0), Phase.STARTING, _describe_start, is_open)


def next_try(delay: float, number: int) -> str:
    """Return the end of a detail: when it is tried again, and for which time."""
    return f"{NEXT_TRY}{delay:.1f} s (try {number})"


def _describe_start(reason: str, _delay: float, _number: int) -> str:
    # Before the socket exists libpq speaks of missing files, and guesses; afterwards the server itself speaks.
    _before, _fatal, words = reason.partition("FATAL:")
    return f"PostgreSQL is starting: {words.strip()}" if words else "PostgreSQL is starting"


class Watch:
    """Keeps one connection and reports the phase it shows.

    Args:
        waits: The process's selector.
        report: Told each phase and detail; repeats are its to drop.
        pace: How the server is waited for.
        database: Created if it is missing, before the server counts as read-write; None leaves databases alone.
        connected: Called with each new connection, before anything is reported of it: it may lead to another server.
    """

    def __init__(
        self,
        waits: Waits,
        report: Callable[[Phase, str], None],
        pace: Pace,
        database: str | None = None,
        connected: Callable[[], None] = lambda: None,
    ) -> None:
        self._waits = waits
        self._report = report
        self._pace = pace
        self._database = database
        self._connected = connected
        self._session = Session(waits, self)
        self._parameters: Parameters = {}
        self._timer: Timer | None = None
        self._grace: Timer | None = None
        #: How often a read-write server is asked; None where the end of the connection is the news.
        self._interval: float | None = None
        #: Whether the last report was that the server answers.
        self._is_answering = False

    def begin(self, parameters: Parameters) -> None:
        """Watch this server from now on; its phase is reported as soon as it is known."""
        self.end()
        self._parameters = {**parameters, "application_name": "bgworker database", "client_encoding": "UTF8"}
        self._pace.backoff.reset()
        self._connect()

    def ask_again_every(self, interval: float | None) -> None:
        """Ask a read-write server for its phase this often: a pooler keeps our connection when the server behind it goes."""
        self._interval = interval
        # One that is being asked sets the timer with its answer.
        if interval is not None and self._is_answering and self._session.is_connected and not self._session.is_asking:
            self._set_timer(self._waits.call_after(interval, self._ask))

    def end(self) -> None:
        """Stop watching and report nothing more."""
        self._is_answering = False
        self._set_timer(None)
        self._end_grace()
        self._session.close()

    # --- connecting ---

    def _connect(self) -> None:
        if self._pace.is_open():
            self._session.connect(self._parameters)
        else:
            self._retry("it takes no connections yet")

    def session_lost(self, reason: str) -> None:
        """Try again: at once after a connection that stood, else after a delay."""
        reason = without_secrets(reason, self._parameters)
        if self._is_answering and self._grace is None:
            self._set_timer(None)
            self._grace = self._waits.call_after(RECONNECT_GRACE, lambda: self._say_lost(reason))
            self._connect()
            return
        self._retry(reason)

    def _say_lost(self, reason: str) -> None:
        self._is_answering = False
        self._report(self._pace.when_silent, f"connection lost: {reason}; connecting again")

    def _retry(self, reason: str) -> None:
        self._end_grace()
        self._is_answering = False
        delay = self._pace.backoff.next()
        self._report(self._pace.when_silent, self._pace.describe(reason, delay, self._pace.backoff.failures + 1))
        self._set_timer(self._waits.call_after(delay, self._connect))

    # --- connected ---

    def session_ready(self) -> None:
        """Ask for the phase."""
        self._connected()
        self._ask()

    def session_notified(self, channel: str, payload: str) -> None:
        """Cannot happen: this connection never LISTENs."""

    def _ask(self, timeout: float = STATEMENT_TIMEOUT) -> None:
        sql = _IN_RECOVERY
        if self._database is not None:
            name = self._session.literal(self._database)
            sql += b", EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = " + name + b")"
        self._session.query(sql, self._answered, timeout)

    def _answered(self, outcome: Outcome) -> None:
        if outcome.error or not outcome.rows:
            self._statement_failed(outcome.error or "the server gave no answer")
            return
        in_recovery, *has_database = outcome.rows[0]
        if in_recovery == "t":
            self._set_timer(self._waits.call_after(STANDBY_INTERVAL, self._ask))
            self._answers(Phase.CONSISTENT, "it is a standby")
        elif has_database == ["f"]:
            assert self._database is not None
            self._session.query(b"CREATE DATABASE " + self._session.identifier(self._database), self._created)
        else:
            self._is_read_write()

    def _created(self, outcome: Outcome) -> None:
        if outcome.error and outcome.sqlstate != _DUPLICATE_DATABASE:
            self._statement_failed(f'could not create database "{self._database}": {outcome.error}')
        else:
            self._is_read_write()

    def _is_read_write(self) -> None:
        if self._interval is not None:
            self._set_timer(self._waits.call_after(self._interval, self._ask))
        elif (probe := keepalive(self._parameters)) is not None:
            idle, patience = probe
            self._set_timer(self._waits.call_after(idle, lambda: self._ask(patience)))
        self._answers(Phase.RECOVERY_FINISHED, "")

    def _statement_failed(self, reason: str) -> None:
        self._session.close()
        self._end_grace()
        self._is_answering = False
        reason = without_secrets(reason, self._parameters)
        delay = max(STATEMENT_RETRY, self._pace.backoff.next())
        self._report(Phase.UNREACHABLE, reason + next_try(delay, self._pace.backoff.failures + 1))
        self._set_timer(self._waits.call_after(delay, self._connect))

    def _answers(self, phase: Phase, detail: str) -> None:
        self._end_grace()
        self._pace.backoff.reset()
        self._is_answering = True
        self._report(phase, detail)

    # --- timers ---

    def _set_timer(self, timer: Timer | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer

    def _end_grace(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
