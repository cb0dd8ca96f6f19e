"""Databases that allow no connections, opened for one worker's connection each (BGWORKER_BYPASS_ALLOWCONN, C18).

A client cannot pass the server's test of datallowconn as a worker in C does. So the database is
opened for a moment, with a connection limit of 0: that lets superusers in and nobody else. Old
values are in the journal before anything is changed, and stay there until they are back:

    open ──journal──> ALTER DATABASE ──> answered ──close, deadline, lost connection──> ALTER DATABASE back ──> journal

One at a time; others queue. Nothing here ever waits: everything is a callback of the session, a
timer or a message, and ``_proceed`` decides what is next. Imported by ``process`` when psycopg is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from bgworker._database.backoff import Backoff
from bgworker._database.conninfo import Parameters, without_secrets
from bgworker._database.journal import Entry, Journal
from bgworker._database.session import Outcome, Session
from bgworker._database.waits import Timer, Waits
from bgworker.errors import HostError

#: How long a request may queue, and how long a database stays open for a worker that says nothing, in seconds.
DEADLINE: Final = 30.0
#: How long a shutdown waits for what is open; the host kills this process after five seconds.
_FINISH_TIMEOUT: Final = 2.0
#: Lets superusers in and nobody else (CheckMyDatabase in postinit.c).
_NOBODY_ELSE: Final = 0
#: A restored value that a crash of the server loses would stay lost: the journal has forgotten it by then.
_ASK_SYSTEM: Final = b"SET synchronous_commit = on; SELECT system_identifier FROM pg_catalog.pg_control_system()"
_COLUMNS: Final = b"SELECT oid, datname, datallowconn, datconnlimit, pg_catalog.current_setting('is_superuser'), current_user"

_UNDEFINED_DATABASE: Final = "3D000"
_INSUFFICIENT_PRIVILEGE: Final = "42501"


@dataclass(frozen=True)
class Answer:
    """What becomes of a request: opened (no error), or why not."""

    error: str = ""
    #: The server's, or the one that it would have given; "" where the reason is not the server's.
    sqlstate: str = ""
    detail: str = ""
    hint: str = ""


class OpeningsOwner(Protocol):
    """Who hears of it."""

    def opening_answered(self, request: int, answer: Answer) -> None:
        """The worker may connect now, or gets an error."""

    def log(self, level: str, message: str, detail: str = "", hint: str = "") -> None:
        """Write a line to the host's log."""


@dataclass(eq=False)
class _Request:
    number: int
    database: str
    worker: str
    timer: Timer
    #: The worker has gone, or given up, before it was answered.
    is_withdrawn: bool = False


class Openings:
    """All requests of one database process.

    Args:
        waits: The process's selector.
        owner: Who hears.
        journal: Old values.
        deadline: How long a request may queue, and how long a database stays open, in seconds.
    """

    def __init__(self, waits: Waits, owner: OpeningsOwner, journal: Journal, deadline: float = DEADLINE) -> None:
        self._waits = waits
        self._owner = owner
        self._journal = journal
        self._deadline = deadline
        self._session = Session(waits, self)
        self._backoff = Backoff(0.25, 30.0, jitter=0.25)
        self._parameters: Parameters = {}
        self._is_possible = False
        #: None until the file has been read.
        self._entries: list[Entry] | None = None
        self._queue: deque[_Request] = deque()
        #: The request whose database is being opened, or is open; ``_is_open`` says which.
        self._current: _Request | None = None
        self._is_open = False
        #: A connection or statement is under way.
        self._is_busy = False
        #: Which server the connection is to.
        self._system = ""
        self._retry: Timer | None = None
        self._last_complaint = ""
        #: Why nothing can be done at present.
        self._failure = ""
        self._finished: Callable[[], None] | None = None

    # --- what the process says ---

    def begin(self, parameters: Parameters) -> None:
        """The server answers: undo what an earlier process left open, then serve."""
        self._parameters = {**parameters, "application_name": "bgworker database", "client_encoding": "UTF8"}
        if not self._is_possible and self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._is_possible = True
        self._proceed()

    def pause(self) -> None:
        """The server does not answer: make no new connection."""
        self._is_possible = False

    def open(self, number: int, database: str, worker: str) -> None:
        """Open a database for a worker's connection, when it is its turn."""
        timer = self._waits.call_after(self._deadline, lambda: self._overdue(request))
        request = _Request(number, database, worker, timer)
        self._queue.append(request)
        self._proceed()

    def close(self, number: int) -> None:
        """The worker has connected, or has gone; a number that is not known is one that is over."""
        if self._current is not None and self._current.number == number:
            self._current.is_withdrawn = True
            if self._is_open:
                self._end_current()
        for request in [each for each in self._queue if each.number == number]:
            request.timer.cancel()
            self._queue.remove(request)
        self._proceed()

    def finish(self, done: Callable[[], None]) -> None:
        """Take no more requests, undo what is open as far as the server lets us in time, and call back."""
        for request in list(self._queue):
            self._queue.remove(request)
            self._answer(request, Answer("the host is shutting down"))
        timer = self._waits.call_after(_FINISH_TIMEOUT, lambda: self._finish())

        def finished() -> None:
            timer.cancel()
            done()

        self._finished = finished
        if self._current is not None:
            self.close(self._current.number)
        else:
            self._proceed()

    def end(self) -> None:
        """Close the connection and do nothing more: the next process undoes what is open."""
        self._finished = None
        self._is_possible = False
        self._session.close()

    def _finish(self) -> None:
        finished = self._finished
        self.end()
        if finished is not None:
            finished()

    # --- what is next ---

    def _proceed(self) -> None:
        """Do the next thing that can be done; called whenever something has changed."""
        if self._is_busy or self._is_open or self._retry is not None:
            return
        if not self._has_work() or (self._finished is not None and not self._is_possible):
            self._session.close()
            if self._finished is not None:
                self._finish()
        elif not self._is_possible:
            return
        elif not self._session.is_connected:
            self._is_busy = True
            self._session.connect(self._parameters)
        elif (entry := self._leftover()) is not None:
            self._look_at(entry)
        elif self._queue:
            self._look_for(self._queue.popleft())
        else:
            self._session.close()  # what is left is another server's

    def _has_work(self) -> bool:
        if self._entries is None:
            try:
                self._entries = self._journal.read()
            except (HostError, OSError) as error:
                self._refuse_all(_reason(error))
                return False
        is_of_another = self._system and all(entry.system != self._system for entry in self._entries)
        return bool(self._queue) or bool(self._entries and not is_of_another)

    def _leftover(self) -> Entry | None:
        return next((entry for entry in self._entries or () if entry.system == self._system), None)

    def _refuse_all(self, reason: Answer) -> None:
        self._complain("ERROR", reason.error, reason.detail, reason.hint)
        while self._queue:
            self._answer(self._queue.popleft(), reason)

    # --- the session's news (SessionOwner) ---

    def session_ready(self) -> None:
        """Find out which server this is: the journal may be about another one."""
        self._session.query(_ASK_SYSTEM, self._system_told)

    def _system_told(self, outcome: Outcome) -> None:
        self._is_busy = False
        if outcome.error or not outcome.rows:
            self._session.close()
            self._try_later(outcome.error or "the server gave no answer")
            return
        self._system = str(outcome.rows[0][0])
        self._backoff.reset()
        self._failure = ""
        for entry in self._entries or ():
            if entry.system != self._system:
                self._complain(
                    "WARNING",
                    f'database "{entry.name}" of another server is still open to superusers',
                    f"Its old values are kept in {self._journal.path} until that server is configured again.",
                )
        self._proceed()

    def session_lost(self, reason: str) -> None:
        """What was open is undone over the next connection."""
        self._is_busy = False
        current, was_open = self._current, self._is_open
        self._end_current()
        if current is not None and not was_open:
            # Whether it was opened nobody knows; the journal has it in either case.
            self._answer(
                current, Answer(f'could not open database "{current.database}": {self._masked(reason)}', hint="Try again.")
            )
        self._try_later(reason)

    def session_notified(self, channel: str, payload: str) -> None:
        """Cannot happen: this connection never LISTENs."""

    def _try_later(self, reason: str) -> None:
        delay = self._backoff.next()
        self._failure = self._masked(reason)
        if self._leftover_or_unknown():
            self._complain("WARNING", f"could not close databases to connections again: {self._failure}", "It is tried again.")
        self._retry = self._waits.call_after(delay, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self._proceed()

    def _leftover_or_unknown(self) -> bool:
        return bool(self._entries) and (not self._system or self._leftover() is not None)

    # --- opening ---

    def _look_for(self, request: _Request) -> None:
        request.timer.cancel()  # from here on the session has its own
        self._current, self._is_busy = request, True
        name = self._session.literal(request.database)
        sql = _COLUMNS + b" FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) " + name
        self._session.query(sql, lambda outcome: self._found(request, outcome))

    def _found(self, request: _Request, outcome: Outcome) -> None:
        refusal, entry = self._judge(request, outcome)
        if refusal is None and entry is None:
            self._settle(request, Answer())  # it allows connections: there is nothing to open
            return
        if refusal is None and entry is not None and not request.is_withdrawn:
            assert self._entries is not None
            try:
                self._journal.write([*self._entries, entry])
            except (HostError, OSError) as error:
                refusal = _reason(error)
            else:
                self._entries.append(entry)
                sql = self._alter(entry.name, allow=True, limit=_NOBODY_ELSE)
                self._session.query(sql, lambda done: self._opened(request, entry, done))
                return
        self._settle(request, refusal or Answer())

    def _judge(self, request: _Request, outcome: Outcome) -> tuple[Answer | None, Entry | None]:
        """Return why the database cannot be opened, or what to write down first; neither if it is open."""
        if outcome.error:
            return Answer(self._masked(outcome.error), outcome.sqlstate), None
        if not outcome.rows:
            return Answer(f'database "{request.database}" does not exist', _UNDEFINED_DATABASE), None
        oid, name, allows, limit, is_superuser, role = outcome.rows[0]
        if allows == "t":
            return None, None
        if is_superuser != "on":
            return needs_superuser(f'cannot open database "{name}", which allows no connections', str(role)), None
        return None, Entry(self._system, int(oid or 0), str(name), allow_connections=False, connection_limit=int(limit or 0))

    def _opened(self, request: _Request, entry: Entry, outcome: Outcome) -> None:
        if outcome.error:
            self._forget(entry)
            self._settle(request, Answer(self._masked(outcome.error), outcome.sqlstate))
            return
        self._owner.log("LOG", f'database "{entry.name}" is open to superusers while background worker "{request.worker}" connects')
        self._is_busy, self._is_open = False, True
        self._answer(request, Answer())
        if request.is_withdrawn:
            self._end_current()
            self._proceed()
        else:
            request.timer = self._waits.call_after(self._deadline, lambda: self._overdue(request))

    def _settle(self, request: _Request, answer: Answer) -> None:
        """Answer a request that leaves nothing to undo, and go on to the next."""
        self._is_busy = False
        self._end_current()
        self._answer(request, answer)
        self._proceed()

    def _answer(self, request: _Request, answer: Answer) -> None:
        request.timer.cancel()
        if not request.is_withdrawn:
            self._owner.opening_answered(request.number, answer)

    def _overdue(self, request: _Request) -> None:
        if request is self._current and self._is_open:
            self._complain(
                "WARNING", f'background worker "{request.worker}" did not connect to database "{request.database}" in time'
            )
        elif request in self._queue:
            self._queue.remove(request)
            why = self._failure or "the server does not answer, or another database is open for another worker"
            self._answer(request, Answer(f'could not open database "{request.database}" in time', "", f"{why}.", "Try again."))
        self.close(request.number)

    def _end_current(self) -> None:
        """Nobody's database is open any more; the journal's entry makes it closed."""
        if self._current is not None:
            self._current.timer.cancel()
        self._current, self._is_open = None, False

    # --- undoing ---

    def _look_at(self, entry: Entry) -> None:
        self._is_busy = True
        sql = _COLUMNS + b" FROM pg_catalog.pg_database WHERE oid OPERATOR(pg_catalog.=) %d" % entry.oid
        self._session.query(sql, lambda outcome: self._restore(entry, outcome))

    def _restore(self, entry: Entry, outcome: Outcome) -> None:
        if outcome.error:
            self._restored(entry, outcome)
            return
        _oid, name, allows, limit, *_rest = outcome.rows[0] if outcome.rows else (None,) * 4
        old = ("t" if entry.allow_connections else "f", str(entry.connection_limit))
        if name is None or (allows, limit) == old:
            self._restored(entry, Outcome())  # dropped meanwhile, or never opened
        elif limit != str(_NOBODY_ELSE):
            self._complain(
                "WARNING",
                f'database "{name}" is left as it is: its connection limit was changed while it was open for a background worker',
                f"Before, it had ALLOW_CONNECTIONS false and CONNECTION LIMIT {entry.connection_limit}.",
            )
            self._restored(entry, Outcome())
        else:
            sql = self._alter(name, allow=entry.allow_connections, limit=entry.connection_limit)
            self._session.query(sql, lambda done: self._restored(entry, done, name))

    def _restored(self, entry: Entry, outcome: Outcome, name: str = "") -> None:
        self._is_busy = False
        if outcome.error:
            self._try_later(f'database "{entry.name}": {outcome.error}')
            return
        self._forget(entry)
        if name:
            self._owner.log("LOG", f'database "{name}" is closed to connections again')
        self._proceed()

    def _forget(self, entry: Entry) -> None:
        assert self._entries is not None
        self._entries.remove(entry)
        try:
            self._journal.write(self._entries)
        except (HostError, OSError) as error:
            # It is looked at once more by the next process, which finds the old values.
            self._complain("WARNING", f"could not write {self._journal.path}: {error}")

    # --- small things ---

    def _alter(self, name: str, *, allow: bool, limit: int) -> bytes:
        # One statement: in between two the database would be open to everybody.
        options = b" WITH ALLOW_CONNECTIONS %s CONNECTION LIMIT %d" % (b"true" if allow else b"false", limit)
        return b"ALTER DATABASE " + self._session.identifier(name) + options

    def _complain(self, level: str, message: str, detail: str = "", hint: str = "") -> None:
        if message != self._last_complaint:
            self._last_complaint = message
            self._owner.log(level, message, detail, hint)

    def _masked(self, reason: str) -> str:
        return without_secrets(reason, self._parameters)


def needs_superuser(what: str, role: str) -> Answer:
    """Return the refusal for a server whose configured role is no superuser."""
    return Answer(
        f'{what}: role "{role}" is no superuser',
        _INSUFFICIENT_PRIVILEGE,
        "BGWORKER_BYPASS_ALLOWCONN needs SUPERUSER: the database is opened to superusers for the moment of the connection.",
        "Name a superuser in [database] url, or run ALTER DATABASE ... ALLOW_CONNECTIONS true and leave the flag out.",
    )


def _reason(error: HostError | OSError) -> Answer:
    if isinstance(error, HostError):
        return Answer(error.message_primary, "", error.message_detail, error.message_hint)
    return Answer(f"could not write down what the database was like: {error}")
