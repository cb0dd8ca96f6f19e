"""The lock of a singleton worker: one active instance among all hosts that share a database.

A session advisory lock on the worker's own connection, taken before the worker counts as
started. The server frees it when the session ends, however that ends, so there is no lease to
renew and no clock to compare. What this cannot promise stands in docs/singleton.md.

The wait for the lock is a query that blocks on the server: whoever holds the lock may end at
any moment, and the next one has it in the same moment. The query is asked anew every
``LONGEST_QUERY`` seconds, because a statement holds a snapshot for as long as it runs: VACUUM
could remove nothing younger, and CREATE INDEX CONCURRENTLY would not come to its end.

``main`` takes the lock, ``connection`` and ``async_main`` hand the connection on. psycopg is
imported at the first use only.
"""

from __future__ import annotations

import hashlib
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bgworker._worker.interrupts import Deferred
from bgworker._worker.refusals import UsageError
from bgworker.errors import HostError

if TYPE_CHECKING:
    from bgworker._worker.connection import Plan
    from bgworker._worker.database import AsyncWorkerConnection, WorkerConnection
    from bgworker._worker.runtime import Runtime

#: Seconds after which the blocking query is asked anew, and the holder looked up again.
LONGEST_QUERY: Final = 30
#: Before the name in what is hashed, so that the key is nobody else's.
NAMESPACE: Final = "bgworker singleton "
#: Longest application_name in bytes (NAMEDATALEN - 1), and how many of them a host name may take.
_MAX_APPLICATION_NAME: Final = 63
_MAX_HOST_NAME: Final = 31

#: This side of the connection: a server that is lost is noticed within ten seconds. Sooner than the server
#: notices this side, so that a worker that is cut off from the server ends before another one begins.
CLIENT_SETTINGS: Final = {
    "keepalives": 1, "keepalives_idle": 4, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000,
}  # fmt: skip
#: The server's side: a lost machine's lock is free within twenty seconds, a few more in the middle of a query.
#: Where the server does not know a setting, or cannot do it, it goes without.
SERVER_SETTINGS: Final = {
    "tcp_keepalives_idle": "8",
    "tcp_keepalives_interval": "4",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20000",
    "client_connection_check_interval": "4000",
    "idle_session_timeout": "0",
}
#: Would cut the wait short; what is configured counts again for the function.
_TIMEOUTS: Final = ("statement_timeout", "transaction_timeout")

_SET: Final = "SELECT pg_catalog.set_config(name, %s, false) FROM pg_catalog.pg_settings WHERE name = %s"
_TRY: Final = "SELECT pg_catalog.pg_try_advisory_lock(%s)"
# The block is there for its exception clause: a timeout that leaves it would be an ERROR in the server's log each time.
# A deadlock is one of another session that waits for this statement's end (CREATE INDEX CONCURRENTLY in the holder's).
_WAIT: Final = """
DO $$BEGIN
  PERFORM pg_catalog.set_config('lock_timeout', '{seconds}s', true);
  PERFORM pg_catalog.pg_advisory_lock({key});
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
  NULL;
END$$ LANGUAGE plpgsql"""
_HOLDER: Final = """
SELECT l.pid = pg_catalog.pg_backend_pid(), l.pid, coalesce(a.application_name, ''), coalesce(host(a.client_addr), ''),
       coalesce(to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), '')
FROM pg_catalog.pg_locks l
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  AND l.classid::bigint = %s AND l.objid::bigint = %s AND l.objsubid = 1"""


def lock_key(name: str) -> int:
    """Return the key of a worker's lock: the first eight bytes of a SHA-256, as a signed bigint (docs/singleton.md)."""
    return int.from_bytes(hashlib.sha256(f"{NAMESPACE}{name}".encode()).digest()[:8], signed=True)


def application_name(name: str, host: str) -> str:
    """Return what the session is called, so that others can say who holds the lock: ``NAME on HOST``, the name cut to fit."""
    # The server takes ASCII only, and writes anything else longer than it was.
    suffix = f" on {_ascii(host)[:_MAX_HOST_NAME]}"
    return _ascii(name)[: _MAX_APPLICATION_NAME - len(suffix)] + suffix


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()


class Holder(NamedTuple):
    """The session that has the lock, as far as this role may know."""

    is_this: bool
    pid: int
    application_name: str
    address: str
    #: When the session began, RFC 3339; empty if that may not be known.
    since: str

    def reason(self) -> str:
        """Return the sentence that status shows of the worker that waits."""
        name, _, host = self.application_name.rpartition(" on ")
        # Anybody may take this lock by hand; such a session is called what it likes.
        holder = f'"{name}" on host {host}' if name and host and " " not in host else f'"{self.application_name}"'
        if not self.application_name:
            holder = f"a session from {self.address}" if self.address else "another session"
        since = f", connected since {self.since}" if self.since else ""
        return f"waits for singleton lock held by {holder} (backend PID {self.pid}{since}); starts when it is free"


def take_lock(runtime: Runtime) -> None:
    """Open the worker's connection and wait, as long as it takes, until its session has the lock.

    Signals are blocked on entry and on return. In between SIGTERM raises Terminated within milliseconds:
    there is no author's code yet that could want to finish something.

    Raises:
        HostError: There is no connection, or it broke.
        Terminated: The worker has been told to end.
    """
    from bgworker._worker import connection

    name = runtime.worker.bgw_name
    connection.check_may_connect(runtime)
    psycopg = connection._import_psycopg(runtime)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        _take(runtime, _open(runtime))
    except psycopg.Error as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise HostError(f'could not take the singleton lock of background worker "{name}": {said[0].rstrip(".")}') from None
    finally:
        runtime.interrupts.block()
    runtime.has_unclaimed_connection = True


def _open(runtime: Runtime) -> WorkerConnection:
    from bgworker._worker.database import WorkerConnection

    assert runtime.database is not None
    conninfo = runtime.database.session_conninfo("a singleton's lock")
    parameters: dict[str, Any] = {
        **CLIENT_SETTINGS,
        "application_name": application_name(runtime.worker.bgw_name, os.uname().nodename),
    }
    if runtime.database.role is not None:
        parameters["user"] = runtime.database.role
    session = WorkerConnection.connect(conninfo, autocommit=True, **parameters)
    session.adopt(runtime)
    runtime.connection = session
    return session


def _take(runtime: Runtime, session: WorkerConnection) -> None:
    from psycopg import errors

    for setting, value in SERVER_SETTINGS.items():
        with suppress(errors.InvalidParameterValue, errors.FeatureNotSupported):
            session.execute(_SET, (value, setting), prepare=False)
    key = lock_key(runtime.worker.bgw_name)
    if _first(session.execute(_TRY, (key,))):
        return
    for setting in _TIMEOUTS:
        session.execute(_SET, ("0", setting), prepare=False)
    said = ""
    while (holder := _holder(session, key)) is None or not holder.is_this:
        # None: it has been freed just now, and most likely the next query takes it.
        if holder is not None and (reason := holder.reason()) != said:
            said = reason
            with Deferred(runtime.interrupts):
                runtime.channel.send({"type": "waiting", "reason": reason})
        # The key is a number of ours; DO takes no parameters.
        session.execute(_WAIT.format(key=key, seconds=LONGEST_QUERY).encode(), prepare=False)
    session.execute("RESET statement_timeout")
    with suppress(errors.UndefinedObject):  # new in PostgreSQL 17
        session.execute("RESET transaction_timeout")


def _holder(session: WorkerConnection, key: int) -> Holder | None:
    row = session.execute(_HOLDER, (key >> 32 & 0xFFFFFFFF, key & 0xFFFFFFFF), prepare=False).fetchone()
    return None if row is None else Holder(*row)


def _first(cursor: Any) -> Any:
    return cursor.fetchone()[0]


async def become_async(runtime: Runtime) -> None:
    """Make the connection of a worker that turns out to be async one for this event loop; the session is the same."""
    from bgworker._worker.database import AsyncWorkerConnection

    session = runtime.connection
    assert session is not None
    connection = AsyncWorkerConnection(session.pgconn)
    connection._autocommit = True  # set_autocommit() would need the event loop, and does no more on a fresh session
    connection.adopt(runtime)
    runtime.connection, runtime.async_connection = None, connection
    runtime.opener = session  # kept, because psycopg complains of a connection that is dropped while it is open


def claim(runtime: Runtime, wanted: Plan, session: WorkerConnection | AsyncWorkerConnection) -> None:
    """Let the worker's function have the connection that holds the lock, once.

    Raises:
        UsageError: It wants to be in another database, or another role.
    """
    has, asked = session.info, wanted.parameters
    dbname, role = asked.get("dbname", has.dbname), wanted.session_role or asked.get("user", has.user)
    if (dbname, role) != (has.dbname, has.user):
        raise UsageError(
            f'background worker "{runtime.worker.bgw_name}" cannot connect to database "{dbname}" as role "{role}": '
            "it is a singleton",
            f'Its session is in database "{has.dbname}" as role "{has.user}", and holds its lock.',
            "Call bgworker.worker.connect(); to work elsewhere, open a connection of your own beside it.",
        )
    runtime.has_unclaimed_connection = False
