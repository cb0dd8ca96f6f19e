"""The worker's psycopg connection, and how it waits.

The one module of this room that imports psycopg; ``connection`` imports it at the first
connection. The classes are psycopg's own with two things changed:

- ``wait()`` drives psycopg's generators with a poll of its own, which has no periodic
  wake-up (psycopg's wakes ten times a second), also watches the lifeline and the channel,
  and is where a query is cancelled: the signal handler only wakes it. So no handler ever
  talks to the server, and the answer to a cancelled query is always read before anything
  else is sent.
- a cursor refuses LISTEN by the server's command tag (C27). One that a DO block hides has no
  tag; it is found by its first notification, which ends the worker.
"""

from __future__ import annotations

import select
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import psycopg
from psycopg import errors, pq

from bgworker._worker.interrupts import Ending
from bgworker._worker.log import say
from bgworker._worker.refusals import UsageError

if TYPE_CHECKING:
    from psycopg.abc import PQGen

    from bgworker._worker.runtime import Runtime

RV = TypeVar("RV")

#: How long the request to cancel may take: it is a connection of its own to the server.
CANCEL_TIMEOUT: Final = 2.0
#: After SIGTERM, how long to wait for the cancelled query's answer before the connection is given up.
#: Below the default stop_timeout (5 s), so that the exit is the worker's own.
GIVE_UP_TIMEOUT: Final = 2.0
#: For psycopg's asynchronous waits, which want a period: long enough to be none.
_NO_INTERVAL: Final = 86_400.0

_IDLE: Final = pq.TransactionStatus.IDLE
_ACTIVE: Final = pq.TransactionStatus.ACTIVE
_UNKNOWN: Final = pq.TransactionStatus.UNKNOWN
_LISTEN_HINT: Final = "Name the channel in the registration's wake_on: its notifications then set the worker's latch."


def _listen_refused() -> UsageError:
    return UsageError(
        "a background worker cannot LISTEN on its own connection",
        "Nothing would wake it when a notification arrives. The command has been undone.",
        _LISTEN_HINT,
    )


def _end_listener(runtime: Runtime, channel: str) -> None:
    runtime.interrupts.end(
        Ending(
            f'terminating background worker "{runtime.worker.bgw_name}" because it listens on channel "{channel}"',
            "A notification arrived on the worker's own connection, where nothing wakes the worker for it.",
            _LISTEN_HINT,
        )
    )


def _has_listen_tag(cursor: Any) -> bool:
    # _results has those of a string of several statements; the public statusmessage has the current one's only.
    results = getattr(cursor, "_results", None) or ([cursor.pgresult] if cursor.pgresult else [])
    return any(result.command_status == b"LISTEN" for result in results)


class WorkerCursor(psycopg.Cursor[Any]):
    """psycopg's cursor, checked for interrupts and for LISTEN."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        """Execute as psycopg does; refuse LISTEN."""
        connection = self.connection
        if isinstance(connection, WorkerConnection):
            connection.check_for_interrupts()
        # A template string (Python 3.14) has its parameters in it, and psycopg refuses a second argument then.
        super().execute(query, *(() if params is None else (params,)), **options)
        if _has_listen_tag(self):
            connection.execute("UNLISTEN *")
            raise _listen_refused()
        return self


class WorkerConnection(psycopg.Connection[Any]):
    """The one connection of a blocking worker."""

    _runtime: Runtime | None = None

    def adopt(self, runtime: Runtime) -> None:
        """Become the worker's connection; until then every wait is psycopg's."""
        self._runtime = runtime
        self.cursor_factory = WorkerCursor
        self.add_notify_handler(lambda notify: _end_listener(runtime, notify.channel))

    @property
    def is_in_transaction(self) -> bool:
        """Whether a transaction is open, or a query of this thread is unfinished; another thread's query is its own affair."""
        return self.pgconn.transaction_status not in (_IDLE, _UNKNOWN) and not self.lock.locked()

    def check_for_interrupts(self) -> None:
        """Raise Terminated if it is due."""
        if self._runtime is not None and threading.current_thread() is threading.main_thread():
            self._runtime.interrupts.check()

    def idle_fd(self) -> int:
        """Return the socket to watch while the worker sleeps; -1 when another thread uses the connection, or it is closed."""
        return -1 if self.closed or self.lock.locked() else self.pgconn.socket

    def look(self) -> bool:
        """Take in what arrived on the idle connection; return whether it is worth watching further.

        A connection that the server has closed is left as it is: the next query says so, in psycopg's words.
        """
        if not self.lock.acquire(blocking=False):
            return False
        try:
            self.pgconn.consume_input()
            while (notify := self.pgconn.notifies()) is not None:
                if self._runtime is not None:
                    _end_listener(self._runtime, notify.relname.decode("utf-8", "replace"))
        except psycopg.Error:
            return False
        finally:
            self.lock.release()
        return True

    def wait(self, gen: PQGen[RV], interval: float | None = None, timeout: float | None = None) -> RV:
        """Drive one of psycopg's generators to its end."""
        if self._runtime is None or threading.current_thread() is not threading.main_thread():
            options = {key: value for key, value in (("interval", interval), ("timeout", timeout)) if value is not None}
            return super().wait(gen, **options)
        interrupts = self._runtime.interrupts
        interrupts.deferred += 1
        interrupts.running_queries += 1
        try:
            result = _QueryWait(self, self._runtime, interval, timeout).drive(gen)
        except psycopg.Error as error:
            if interrupts.is_due and not interrupts.is_delivered:
                # The cancelled query, or a server going down together with its host: the worker is told the cause alone.
                interrupts.deliver(None if isinstance(error, psycopg.OperationalError) else error)
            raise
        finally:
            interrupts.running_queries -= 1
            interrupts.is_cancel_pending = False
            interrupts.deferred -= 1
        # The signal came too late to cancel anything; in plain code it would have raised by now. Clean-up after
        # a Terminated that was raised already (a rollback) goes through.
        if interrupts.is_due and not interrupts.is_delivered:
            interrupts.deliver()
        return result


class _QueryWait:
    """One wait for the server, cut short by signals and by the host's death."""

    def __init__(self, connection: WorkerConnection, runtime: Runtime, interval: float | None, timeout: float | None) -> None:
        self._connection = connection
        self._runtime = runtime
        self._interval = interval
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._give_up_at: float | None = None
        self._is_cancelled = False
        self._poller: select.poll | None = None
        self._socket = -1
        self._state = 0

    def drive(self, gen: PQGen[RV]) -> RV:
        """Resume the generator whenever the server has something for it, until it returns."""
        try:
            state = next(gen)
            while True:
                try:
                    ready = self._sleep(state)
                except BaseException:
                    self._abort(gen)
                    raise
                state = gen.send(ready)  # psycopg's own waits send integers, too
                # After resuming, so that what has arrived is taken even with a timeout of 0.
                if self._deadline is not None and time.monotonic() >= self._deadline:
                    raise errors._WaitTimeout("wait timeout expired")
        except StopIteration as end:
            result: RV = end.value
            return result

    def _sleep(self, state: int) -> int:
        """Return psycopg's Ready bits; 0 when only the interval has passed."""
        poller = self._watch(state)
        while True:
            self._cancel_if_asked()
            now = time.monotonic()
            ends = [at for at in (self._deadline, self._give_up_at, self._interval and now + self._interval) if at is not None]
            ready = 0
            for fd, bits in poller.poll(max(min(ends) - now, 0) * 1000 if ends else None):
                ready |= self._ready(fd, bits)
            if ready:
                return ready
            now = time.monotonic()
            if self._give_up_at is not None and now >= self._give_up_at:
                self._give_up()
            if self._interval is not None or (self._deadline is not None and now >= self._deadline):
                return 0

    def _watch(self, state: int) -> select.poll:
        if self._poller is None:
            runtime = self._runtime
            self._poller = select.poll()
            self._socket = self._connection.pgconn.socket
            runtime.latch.arm()
            self._poller.register(runtime.latch.read_fd, select.POLLIN)
            for fd in (runtime.lifeline_fd, runtime.channel.fileno()):
                if fd >= 0:
                    self._poller.register(fd, select.POLLIN)
        if state != self._state:
            self._state = state
            # Wait.R is 1 and Wait.W is 2, in every release of psycopg 3.
            self._poller.register(self._socket, (select.POLLIN if state & 1 else 0) | (select.POLLOUT if state & 2 else 0))
        return self._poller

    def _ready(self, fd: int, bits: int) -> int:
        runtime = self._runtime
        if fd == self._socket:
            if bits & ~(select.POLLIN | select.POLLOUT):
                return self._state  # hung up or failed: libpq finds out why when it reads or writes
            return (1 if bits & select.POLLIN else 0) | (2 if bits & select.POLLOUT else 0)
        if fd == runtime.latch.read_fd:
            runtime.latch.drain()
        elif fd == runtime.lifeline_fd:
            runtime.exit_on_host_death()
        else:
            # Read even now, so that the host need not keep a long queue for a long query.
            runtime.channel.receive()
            if runtime.channel.fileno() < 0 and self._poller is not None:
                self._poller.unregister(fd)
        return 0

    def _cancel_if_asked(self) -> None:
        interrupts = self._runtime.interrupts
        if not interrupts.should_cancel_query or (self._is_cancelled and not interrupts.ending):
            return
        if self._connection.pgconn.transaction_status != _ACTIVE:
            interrupts.check()  # waits for something else than a query; there is nothing to take back
            return
        if not self._is_cancelled:
            self._is_cancelled = True
            self._cancel()
        if interrupts.ending is not None and self._give_up_at is None:
            self._give_up_at = time.monotonic() + GIVE_UP_TIMEOUT

    def _cancel(self) -> None:
        try:
            self._connection.cancel_safe(timeout=CANCEL_TIMEOUT)
        except psycopg.Error as error:
            say("WARNING", f"could not cancel the running query: {str(error).splitlines()[0]}")

    def _give_up(self) -> None:
        self._connection.pgconn.finish()
        raise psycopg.OperationalError("the server did not answer after its query was cancelled")

    def _abort(self, gen: PQGen[Any]) -> None:
        """Leave the connection usable, or closed, when an author's own signal handler raises in the middle of a query."""
        connection = self._connection
        if connection.pgconn.status != pq.ConnStatus.OK or connection.pgconn.transaction_status != _ACTIVE:
            return
        self._is_cancelled = True
        self._cancel()
        self._give_up_at, self._interval, self._deadline = time.monotonic() + GIVE_UP_TIMEOUT, None, None
        try:
            state = self._state
            while True:
                state = gen.send(self._sleep(state))
        except (StopIteration, errors.QueryCanceled):
            pass
        # The query failed in another way, or a second exception came: in an unknown state nothing more may be sent.
        except BaseException:
            connection.pgconn.finish()


class AsyncWorkerCursor(psycopg.AsyncCursor[Any]):
    """psycopg's asynchronous cursor, checked for LISTEN. NB: similar code in WorkerCursor."""

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        """Execute as psycopg does; refuse LISTEN."""
        await super().execute(query, *(() if params is None else (params,)), **options)
        if _has_listen_tag(self):
            await self.connection.execute("UNLISTEN *")
            raise _listen_refused()
        return self


class AsyncWorkerConnection(psycopg.AsyncConnection[Any]):
    """The one connection of an async worker. Cancelling a task cancels its query; that is psycopg's own doing."""

    _runtime: Runtime | None = None
    _opener: WorkerConnection | None = None

    def keep(self, opener: WorkerConnection) -> None:
        """Hold on to the connection that opened this session: psycopg complains of one that is dropped while open."""
        self._opener = opener

    def adopt(self, runtime: Runtime) -> None:
        """Become the worker's connection."""
        self._runtime = runtime
        self.cursor_factory = AsyncWorkerCursor
        self.add_notify_handler(lambda notify: _end_listener(runtime, notify.channel))

    async def wait(self, gen: PQGen[RV], interval: float | None = None, timeout: float | None = None) -> RV:
        """Drive one of psycopg's generators to its end, without psycopg's wake-ups."""
        options = {"interval": _NO_INTERVAL if interval is None else interval}
        if timeout is not None:
            options["timeout"] = timeout
        if self._runtime is None:
            return await super().wait(gen, **options)
        interrupts = self._runtime.interrupts
        interrupts.running_queries += 1
        try:
            return await super().wait(gen, **options)
        finally:
            interrupts.running_queries -= 1
            if not interrupts.running_queries:
                interrupts.is_cancel_pending = False
