"""What both connections of a worker share: what arrives unasked, and what the end of the connection does.

A background worker of PostgreSQL's dies with its server. Here the connection is the worker's
life: one that breaks - the server went down, a backend was terminated, the network is gone -
ends the worker as SIGTERM would, by ``Terminated``, so that ``finally`` blocks run; the exit
code is 1, and the worker comes back after its restart time. Whoever notices first asks for
the end: the sleep on the latch, a query, ``check_for_interrupts()``, or the event loop of an
async worker. A worker that closes its connection itself goes on without one.

Imported by ``database`` alone, which imports psycopg.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from bgworker._worker.interrupts import Ending
from bgworker._worker.listening import ending_of_listener

if TYPE_CHECKING:
    from psycopg.abc import PQGen

    from bgworker._worker.runtime import Runtime

_BAD: Final = pq.ConnStatus.BAD
_IN_ERROR: Final = pq.TransactionStatus.INERROR
#: Class 57, operator intervention: a crash of another backend is told as a warning before the connection closes.
_INTERVENTION: Final = "57P"
#: Characters of a reason that are kept.
_LONGEST_REASON: Final = 300


class WatchedConnection:
    """Mixed into psycopg's two connections, before them."""

    pgconn: pq.abc.PGconn
    _closed: bool
    _pipeline: Any
    _exec_command: Callable[..., PQGen[Any]]
    add_notify_handler: Callable[[Callable[[psycopg.Notify], None]], None]
    add_notice_handler: Callable[[Callable[[psycopg.errors.Diagnostic], None]], None]

    _runtime: Runtime | None = None
    #: What the server said of its own accord before it closed the connection.
    _last_words: str = ""
    #: A statement may have been LISTEN: None, or whether the server's tag says so.
    _listened: bool | None = None

    def _watch_for(self, runtime: Runtime) -> None:
        """Become the connection of this worker."""
        self._runtime = runtime
        self.add_notify_handler(lambda notify: self._notified(notify.channel))
        self.add_notice_handler(self._noticed)
        # Where wake_on is listened for depends on it. A worker without a host tells nobody.
        runtime.channel.send({"type": "connected", "database": self._database_name(runtime)})

    def _database_name(self, runtime: Runtime) -> str:
        """Return the database's name; the empty one for the configured database, as the host has it."""
        name = self.pgconn.db.decode("utf-8", "replace")
        assert runtime.database is not None
        configured = conninfo_to_dict(runtime.database.conninfo)
        return "" if name == configured.get("dbname", configured.get("user")) else name

    # -- what arrives unasked ------------------------------------------------------------------------------------------------

    def _notified(self, channel: str) -> None:
        if self._runtime is not None:
            self._runtime.interrupts.end(ending_of_listener(self._runtime.worker.bgw_name, channel))

    def _noticed(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        # An error that belongs to no query arrives as a notice: "terminating connection due to administrator command".
        is_deadly = diagnostic.severity_nonlocalized in ("FATAL", "PANIC") or (diagnostic.sqlstate or "").startswith(_INTERVENTION)
        if is_deadly and diagnostic.message_primary:
            self._last_words = diagnostic.message_primary

    def take_in(self) -> bool:
        """Take in what has arrived while no query ran; return whether the connection stands. Does not wait.

        Only for whoever knows that nobody else uses the connection at this moment.
        """
        try:
            self.pgconn.consume_input()
            while (notify := self.pgconn.notifies()) is not None:
                self._notified(notify.relname.decode("utf-8", "replace"))
        except psycopg.Error as error:
            self.note_loss(error)
            return False
        self.note_loss()
        return not self.is_lost

    # -- the end -------------------------------------------------------------------------------------------------------------

    @property
    def is_lost(self) -> bool:
        """Whether the connection has ended, and not by the worker's own close()."""
        return self.pgconn.status == _BAD and not self._closed

    def note_loss(self, error: psycopg.Error | None = None) -> None:
        """End the worker if its connection has gone. Any thread.

        Args:
            error: What showed it, if anything did.
        """
        if self._runtime is None or not self.is_lost:
            return
        reason = self._last_words or (_reason_of(error) if error is not None else "") or "the server closed the connection"
        name = self._runtime.worker.bgw_name
        self._runtime.interrupts.end(
            Ending(
                f'terminating background worker "{name}" because its database connection was lost: {reason}',
                for_host=f"database connection lost: {reason}",
            )
        )

    # -- LISTEN --------------------------------------------------------------------------------------------------------------

    def note_listen(self, *, is_certain: bool) -> None:
        """Remember that a statement was, or may have been, LISTEN; the wait for it undoes that at its end."""
        self._listened = is_certain or bool(self._listened)

    def _unlisten(self) -> PQGen[None]:
        """Undo LISTEN. The caller holds the connection's lock."""
        if self.pgconn.transaction_status == _IN_ERROR or self.pgconn.status == _BAD:
            return  # it is rolled back with everything else
        yield from self._exec_command(b"UNLISTEN *")
        if self._pipeline is not None:
            yield from self._pipeline._sync_gen()

    def _take_listened(self) -> bool | None:
        listened, self._listened = self._listened, None
        return listened


def _reason_of(error: psycopg.Error) -> str:
    """Return the server's words or libpq's on one line."""
    if error.diag.message_primary:
        return error.diag.message_primary
    lines = str(error).strip().splitlines()
    # psycopg puts the name of its own step in front: "consuming input failed: server closed the connection unexpectedly".
    return lines[0].rpartition(" failed: ")[2].strip().rstrip(".")[:_LONGEST_REASON] if lines else ""
