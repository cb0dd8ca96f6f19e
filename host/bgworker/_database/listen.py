"""LISTEN on behalf of the workers' ``wake_on``: one connection per database, silent while nothing is notified.

A worker that LISTENed itself would need its connection outside a transaction at the right
moments (C27); here the database process listens and the host sets the latches.

A notification is never lost without a word: whenever channels become effective - the first
time as well as after a reconnection - a gap is reported for them, because what was notified
before went unheard. Whoever is woken by a gap looks at its tables once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from bgworker._database.backoff import Backoff
from bgworker._database.conninfo import Parameters, without_secrets
from bgworker._database.session import Outcome, Session
from bgworker._database.waits import Timer, Waits


class ListenOwner(Protocol):
    """Who hears of notifications."""

    def notified(self, database: str, channel: str, payload: str) -> None:
        """A notification has arrived."""

    def gap(self, database: str, channels: list[str]) -> None:
        """Listening has begun (again) on these channels: earlier notifications may have been missed."""

    def listener_failed(self, database: str, reason: str, delay: float) -> None:
        """A database's channels are not listened to; it is tried again after the delay."""


class Listener:
    """The listening connection of one database.

    Args:
        waits: The process's selector.
        owner: Who hears.
        database: Its name, as the host gives it.
    """

    def __init__(self, waits: Waits, owner: ListenOwner, database: str) -> None:
        self._waits = waits
        self._owner = owner
        self._database = database
        self._session = Session(waits, self)
        self._backoff = Backoff(0.25, 30.0, jitter=0.25)
        self._parameters: Parameters = {}
        self._may_connect = False
        self._timer: Timer | None = None
        self._wanted: set[str] = set()
        #: What the server has confirmed on this connection.
        self._effective: set[str] = set()
        #: A statement is under way; what is wanted is compared again when it is done.
        self._is_busy = False

    def want(self, channels: set[str]) -> None:
        """Listen to these channels and to no others."""
        self._wanted = channels
        if self._session.is_connected and not self._is_busy:
            self._adjust()

    def begin(self, parameters: Parameters) -> None:
        """Connect, unless a connection stands, and again whenever it is lost."""
        self._parameters = {**parameters, "application_name": "bgworker listener", "client_encoding": "UTF8"}
        self._may_connect = True
        if not self._session.is_connected:
            self._stop_trying()
            self._backoff.reset()
            self._session.connect(self._parameters)

    def pause(self) -> None:
        """Keep a connection that stands - only the watch's may be gone -, but make no new one."""
        self._may_connect = False
        if not self._session.is_connected:
            self._stop_trying()

    def end(self) -> None:
        """Close the connection and try no further."""
        self._may_connect = False
        self._stop_trying()

    def _stop_trying(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._forget_connection()
        self._session.close()

    def _forget_connection(self) -> None:
        self._effective = set()
        self._is_busy = False

    def session_ready(self) -> None:
        """Listen to what is wanted."""
        self._adjust()

    def session_lost(self, reason: str) -> None:
        """Connect again, after a delay; while the server is away, the watch says when."""
        self._forget_connection()
        if not self._may_connect:
            return
        delay = self._backoff.next()
        self._owner.listener_failed(self._database, without_secrets(reason, self._parameters), delay)
        self._timer = self._waits.call_after(delay, lambda: self._session.connect(self._parameters))

    def session_notified(self, channel: str, payload: str) -> None:
        """Pass it on, unless the channel is one that nobody wants any more."""
        if channel in self._wanted:
            self._owner.notified(self._database, channel, payload)

    def _adjust(self) -> None:
        """Make the server's set of channels the wanted one."""
        new, old = sorted(self._wanted - self._effective), sorted(self._effective - self._wanted)
        if not new and not old:
            return
        self._is_busy = True
        # A database without an encoding takes any bytes as payload, and the server would end our connection over
        # one that it cannot convert; as they are, what is no UTF-8 becomes replacement characters here.
        statements = [b"SET client_encoding TO 'SQL_ASCII'"] if self._session.parameter(b"server_encoding") == "SQL_ASCII" else []
        statements += [b"LISTEN " + self._session.identifier(channel) for channel in new]
        statements += [b"UNLISTEN " + self._session.identifier(channel) for channel in old]
        target = set(self._wanted)

        def done(outcome: Outcome) -> None:
            self._is_busy = False
            if outcome.error:
                self._session.close()
                self.session_lost(outcome.error)
                return
            self._backoff.reset()
            self._effective = target
            if new:
                self._owner.gap(self._database, new)
            self._adjust()

        # Sent as one: one transaction, so that all of them become effective together or none does.
        self._session.query(b"; ".join(statements), done)


class Listeners:
    """The listening connections of all databases that somebody wants notifications from.

    Args:
        waits: The process's selector.
        owner: Who hears.
        parameters_for: Gives the connection parameters of a database by name.
    """

    def __init__(self, waits: Waits, owner: ListenOwner, parameters_for: Callable[[str], Parameters]) -> None:
        self._waits = waits
        self._owner = owner
        self._parameters_for = parameters_for
        self._listeners: dict[str, Listener] = {}
        self._is_possible = False

    @property
    def is_wanted(self) -> bool:
        """Whether anybody waits for a notification."""
        return bool(self._listeners)

    def want(self, channels: Mapping[str, Sequence[str]]) -> None:
        """Take the full set of what is wanted: channels by database; it replaces the one before."""
        wanted = {database: set(names) for database, names in channels.items() if names}
        for database in self._listeners.keys() - wanted.keys():
            self._listeners.pop(database).end()
        for database, names in wanted.items():
            is_new = database not in self._listeners
            listener = self._listeners.setdefault(database, Listener(self._waits, self._owner, database))
            listener.want(names)
            if is_new and self._is_possible:
                listener.begin(self._parameters_for(database))

    def set_possible(self, is_possible: bool) -> None:
        """Say whether the server takes LISTEN: only one that is read-write does."""
        if is_possible == self._is_possible:
            return
        self._is_possible = is_possible
        for database, listener in self._listeners.items():
            if is_possible:
                listener.begin(self._parameters_for(database))
            else:
                listener.pause()

    def end(self) -> None:
        """Close every connection."""
        self._is_possible = False
        for listener in self._listeners.values():
            listener.end()
