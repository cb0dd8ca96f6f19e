"""One libpq connection that never blocks: it connects, runs a statement, hands out notifications.

Built on psycopg.pq, libpq as it is, because psycopg's own connection waits by itself (see
waits). One object is reused for one connection after another. Its owner hears from it in
three ways (``SessionOwner``), and after ``session_lost`` it is closed and can connect again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from psycopg import Error, pq

from bgworker._database.addresses import resolve
from bgworker._database.conninfo import Parameters, connect_timeout, keyword_string, one_line
from bgworker._database.waits import READ, WRITE, Timer, Waits

#: Longest wait for the answer to one of our own small statements.
STATEMENT_TIMEOUT: Final = 10.0
_FAILED: Final = (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE, pq.ExecStatus.NONFATAL_ERROR)


class SessionOwner(Protocol):
    """Who a session reports to."""

    def session_ready(self) -> None:
        """The connection stands and is idle."""

    def session_lost(self, reason: str) -> None:
        """No connection could be made, or the one that stood has gone; called once for each ``connect``."""

    def session_notified(self, channel: str, payload: str) -> None:
        """A notification has arrived."""


@dataclass(frozen=True)
class Outcome:
    """What became of a statement, or of several sent as one."""

    #: The rows of the last result, as text.
    rows: list[list[str | None]] = field(default_factory=list)
    #: The server's message, or "" if nothing failed.
    error: str = ""
    sqlstate: str = ""


class Session:
    """A connection, driven by the selector it is given."""

    def __init__(self, waits: Waits, owner: SessionOwner) -> None:
        self._waits = waits
        self._owner = owner
        self._connection: pq.abc.PGconn | None = None
        self._watched_fd = -1
        self._timer: Timer | None = None
        #: Grows with each ``close``, so that a late answer of the resolver is known as one.
        self._round = 0
        self._attempts: deque[Parameters] = deque()
        #: Why each address failed, in order and without repetition.
        self._failures: dict[str, None] = {}
        self._done: Callable[[Outcome], None] | None = None
        self._outcome = Outcome()
        #: What the server said of its own accord before it closed the connection.
        self._last_words = ""

    # --- connecting ---

    def connect(self, parameters: Parameters) -> None:
        """Connect to the first address of these parameters that lets us in; a connection that stands is closed first."""
        self.close()
        this_round = self._round

        def resolved(attempts: list[Parameters], reason: str) -> None:
            if this_round != self._round:
                return  # closed, or asked for another server, while the name was looked up
            self._attempts.extend(attempts)
            if reason:
                self._failures[one_line(reason)] = None
            self._try_next()

        resolve(self._waits, parameters, resolved)

    def _try_next(self) -> None:
        self._disconnect()
        if not self._attempts:
            reasons = "; ".join(self._failures)
            self._failures.clear()
            self._owner.session_lost(reasons or "there is no address to connect to")
            return
        parameters = self._attempts.popleft()
        try:
            connection = pq.PGconn.connect_start(keyword_string(parameters).encode("utf-8", "surrogateescape"))
        except (Error, MemoryError) as error:
            self._attempt_failed(str(error))
            return
        self._connection = connection
        if connection.status == pq.ConnStatus.BAD:
            self._attempt_failed(connection.get_error_message())
            return
        timeout = connect_timeout(parameters)
        where = parameters.get("hostaddr") or parameters.get("host") or "the server"
        # libpq leaves the timeout to whoever calls PQconnectPoll.
        self._timer = self._waits.call_after(timeout, lambda: self._attempt_failed(f"{where} has not answered for {timeout:g} s"))
        # libpq's manual: behave as if PQconnectPoll last returned PGRES_POLLING_WRITING.
        self._wait_for(WRITE, self._connecting)

    def _attempt_failed(self, reason: str) -> None:
        self._failures[one_line(reason)] = None
        self._try_next()

    def _connecting(self, _events: int) -> None:
        assert self._connection is not None
        self._forget_socket()  # the next step may close it and open another
        try:
            status = self._connection.connect_poll()
        except Error as error:
            self._attempt_failed(str(error))
            return
        if status == pq.PollingStatus.OK:
            self._connected(self._connection)
        elif status == pq.PollingStatus.FAILED:
            self._attempt_failed(self._connection.get_error_message())
        else:
            self._wait_for(READ if status == pq.PollingStatus.READING else WRITE, self._connecting)

    def _connected(self, connection: pq.abc.PGconn) -> None:
        self._stop_timer()
        self._attempts.clear()
        self._failures.clear()
        self._last_words = ""
        connection.nonblocking = 1
        connection.notice_handler = self._noticed
        self._wait_for(READ, self._transfer)
        self._owner.session_ready()

    # --- connected ---

    @property
    def is_connected(self) -> bool:
        """Whether a connection stands, as far as anybody knows."""
        return self._connection is not None and self._connection.status == pq.ConnStatus.OK

    @property
    def is_asking(self) -> bool:
        """Whether a statement is under way."""
        return self._done is not None

    @property
    def key_pid(self) -> int:
        """The pid in the key that cancels this connection's queries; a pooler's is none of the server's."""
        assert self._connection is not None
        return self._connection.backend_pid

    def literal(self, text: str) -> bytes:
        """Return the text quoted as a literal for this connection."""
        return pq.Escaping(self._connection).escape_literal(text.encode())

    def identifier(self, text: str) -> bytes:
        """Return the text quoted as an identifier for this connection."""
        return pq.Escaping(self._connection).escape_identifier(text.encode())

    def parameter(self, name: bytes) -> str:
        """Return what the server has reported of itself by this name, "" for nothing."""
        assert self._connection is not None
        return _text(self._connection.parameter_status(name) or b"")

    def query(self, sql: bytes, done: Callable[[Outcome], None], timeout: float = STATEMENT_TIMEOUT) -> None:
        """Run statements and call back with the outcome; a connection that breaks meanwhile calls ``session_lost`` instead."""
        assert self._connection is not None
        assert self._done is None
        self._done = done
        self._outcome = Outcome()
        self._timer = self._waits.call_after(timeout, lambda: self._lost(f"the server has not answered for {timeout:g} s"))
        try:
            self._connection.send_query(sql)
        except Error as error:
            self._lost(str(error))
            return
        # Sent from the selector: the kernel's buffer may be full.
        self._wait_for(READ | WRITE, self._transfer)

    def _transfer(self, events: int) -> None:
        """Move bytes both ways and act on what is complete."""
        connection = self._connection
        assert connection is not None
        try:
            if events & READ:
                connection.consume_input()
            if events & WRITE and connection.flush() == 0:
                self._wait_for(READ, self._transfer)
            is_busy = bool(connection.is_busy())
            notifications = []
            while (notification := connection.notifies()) is not None:
                notifications.append(notification)
            is_complete = self._done is not None and not is_busy and self._collect_results(connection)
        except Error as error:
            self._lost(str(error))
            return
        for notification in notifications:
            self._owner.session_notified(_text(notification.relname), _text(notification.extra))
        if connection is not self._connection:
            return  # the owner has closed it
        if connection.status != pq.ConnStatus.OK:
            self._lost(connection.get_error_message())
        elif is_complete:
            self._stop_timer()
            done, self._done = self._done, None
            assert done is not None
            done(self._outcome)

    def _collect_results(self, connection: pq.abc.PGconn) -> bool:
        """Take the results that are there; return whether they are all."""
        while not connection.is_busy():
            if (result := connection.get_result()) is None:
                return True
            if result.status in _FAILED:
                state = result.error_field(pq.DiagnosticField.SQLSTATE) or b""
                primary = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY)
                message = _text(primary) if primary else result.get_error_message()
                self._outcome = Outcome(error=one_line(message), sqlstate=_text(state))
            elif not self._outcome.error:
                self._outcome = Outcome(rows=_rows(result))
        return False

    def _noticed(self, result: pq.abc.PGresult) -> None:
        # An error that belongs to no statement arrives as a notice: "terminating connection due to administrator command".
        if result.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED) in (b"FATAL", b"PANIC"):
            self._last_words = _text(result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"")

    def _lost(self, reason: str) -> None:
        reason = self._last_words or self._outcome.error or reason
        self._disconnect()
        self._owner.session_lost(one_line(reason))

    # --- closing ---

    def close(self) -> None:
        """Close the connection, or give up connecting; the owner hears nothing more of it."""
        self._round += 1
        self._attempts.clear()
        self._failures.clear()
        self._disconnect()

    def _disconnect(self) -> None:
        self._stop_timer()
        self._forget_socket()
        self._done = None
        if self._connection is not None:
            self._connection.notice_handler = None
            self._connection.finish()
            self._connection = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait_for(self, events: int, ready: Callable[[int], None]) -> None:
        assert self._connection is not None
        self._watched_fd = self._connection.socket
        self._waits.watch(self._watched_fd, events, ready)

    def _forget_socket(self) -> None:
        if self._watched_fd >= 0:
            self._waits.forget(self._watched_fd)
            self._watched_fd = -1


def _rows(result: pq.abc.PGresult) -> list[list[str | None]]:
    rows: list[list[str | None]] = []
    for row in range(result.ntuples):
        values = [result.get_value(row, column) for column in range(result.nfields)]
        rows.append([None if value is None else _text(value) for value in values])
    return rows


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
