"""The worker's psycopg connection, and how it waits.

With ``watched`` and ``listening`` the one part of this room that imports psycopg; ``connection`` imports it at the first
connection. The classes are psycopg's own with two things changed:

- ``wait()`` drives psycopg's generators with a poll of its own, which has no periodic
  wake-up (psycopg's wakes ten times a second), also watches the lifeline and the channel,
  and is where a query is cancelled: the signal handler only wakes it. So no handler ever
  talks to the server, and the answer to a cancelled query is always read before anything
  else is sent.
- a cursor refuses LISTEN (``listening``), and a connection that breaks ends the worker
  (``watched``).
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import psycopg
from psycopg import errors, pq

from bgworker._worker.listening import RefusesListen, refused_listen, refusing
from bgworker._worker.log import say
from bgworker._worker.watched import WatchedConnection

if TYPE_CHECKING:
    from psycopg.abc import PQGen

    from bgworker._worker.runtime import Runtime

RV = TypeVar("RV")

#: How long the request to cancel may take: it is a connection of its own to the server.
CANCEL_TIMEOUT: Final = 2.0
#: After SIGTERM, how long to wait for the cancelled query's answer before the connection is given up.
#: Below the default stop_timeout (5 s), so that the exit is the worker's own.
GIVE_UP_TIMEOUT: Final = 2.0
#: How long the first, quick look at a query's socket lasts, in milliseconds: see _QueryWait.
_UNARMED: Final = 5.0
#: For psycopg's asynchronous waits, which want a period: long enough to be none.
_NO_INTERVAL: Final = 86_400.0

_IDLE: Final = pq.TransactionStatus.IDLE
_ACTIVE: Final = pq.TransactionStatus.ACTIVE
_UNKNOWN: Final = pq.TransactionStatus.UNKNOWN


class WorkerCursor(RefusesListen, psycopg.Cursor[Any]):
    """psycopg's cursor, checked for interrupts and for LISTEN."""

    __slots__ = ()

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        """Execute as psycopg does."""
        connection = self.connection
        if isinstance(connection, WorkerConnection):
            connection.check_for_interrupts()
        # A template string (Python 3.14) has its parameters in it, and psycopg refuses a second argument then.
        return super().execute(query, *(() if params is None else (params,)), **options)


class WorkerConnection(WatchedConnection, psycopg.Connection[Any]):
    """The one connection of a blocking worker."""

    _cursors: type[psycopg.Cursor[Any]]
    _query_wait: _QueryWait
    #: Compared with get_ident() in every wait: asking threading for the thread's object takes ten times as long.
    _main_thread: int | None = None

    def adopt(self, runtime: Runtime) -> None:
        """Become the worker's connection; until then every wait is psycopg's."""
        self._main_thread = threading.main_thread().ident
        self._watch_for(runtime)
        self._query_wait = _QueryWait(self, runtime)
        self.cursor_factory = WorkerCursor

    @property
    def cursor_factory(self) -> type[psycopg.Cursor[Any]]:
        """The class of the cursors; one of the author's choice refuses LISTEN as well."""
        return self._cursors

    @cursor_factory.setter
    def cursor_factory(self, factory: type[psycopg.Cursor[Any]]) -> None:
        self._cursors = refusing(factory) if self._runtime is not None else factory

    @property
    def is_in_transaction(self) -> bool:
        """Whether a transaction is open, or a query of this thread is unfinished; another thread's query is its own affair."""
        return self.pgconn.transaction_status not in (_IDLE, _UNKNOWN) and not self.lock.locked()

    def check_for_interrupts(self) -> None:
        """Raise Terminated if it is due."""
        if self._runtime is not None and threading.get_ident() == self._main_thread:
            self._runtime.interrupts.check()

    def idle_fd(self) -> int:
        """Return the socket to watch while the worker sleeps; -1 when another thread uses the connection, or it is closed."""
        self.note_loss()
        return -1 if self.closed or self.lock.locked() else self.pgconn.socket

    def look(self) -> bool:
        """Take in what arrived on the idle connection; return whether it is worth watching further."""
        if not self.lock.acquire(blocking=False):
            return False
        try:
            return self.take_in()
        finally:
            self.lock.release()

    def wait(self, gen: PQGen[RV], interval: float | None = None, timeout: float | None = None) -> RV:
        """Drive one of psycopg's generators to its end; undo a LISTEN that was in it, and refuse it."""
        try:
            result = self._wait(gen, interval, timeout)
        except psycopg.Error:
            if (listened := self._take_listened()) is not None:
                self._wait(self._unlisten(), None, None)
            if listened:
                raise refused_listen() from None
            raise
        if self._listened is not None and self._take_listened():
            self._wait(self._unlisten(), None, None)
            raise refused_listen()
        return result

    def _wait(self, gen: PQGen[RV], interval: float | None, timeout: float | None) -> RV:
        if self._runtime is None or threading.get_ident() != self._main_thread:
            options = {key: value for key, value in (("interval", interval), ("timeout", timeout)) if value is not None}
            try:
                return super().wait(gen, **options)
            except psycopg.Error as error:
                self.note_loss(error)
                raise
        interrupts = self._runtime.interrupts
        interrupts.deferred += 1
        interrupts.running_queries += 1
        try:
            result = self._query_wait.drive(gen, interval, timeout)
        except psycopg.Error as error:
            self.note_loss(error)
            if interrupts.is_due and not interrupts.is_delivered:
                # The cancelled query, or a server that has gone: the worker is told the cause alone.
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
    """The waits of one connection for the server, cut short by signals and by the host's death.

    One object for all of them: a transaction waits three times, and what is set up anew for each wait is
    paid for three times. The first milliseconds of a wait look at the socket alone, with no wakeup
    descriptor armed: most answers come in that time, and all that cuts a wait short can wait for so
    long. Never entered twice: the connection's lock is held.
    """

    def __init__(self, connection: WorkerConnection, runtime: Runtime) -> None:
        self._connection = connection
        self._runtime = runtime
        self._interrupts = runtime.interrupts
        self._interval: float | None = None
        self._deadline: float | None = None
        self._give_up_at: float | None = None
        self._is_cancelled = False
        self._is_armed = False
        self._socket = connection.pgconn.socket
        #: What the socket is watched for, as psycopg's Wait bits.
        self._state = 0
        self._channel_fd = -1
        self._quick_poller = select.poll()
        self._poller = select.poll()
        self._poller.register(runtime.latch.read_fd, select.POLLIN)
        if runtime.lifeline_fd >= 0:
            self._poller.register(runtime.lifeline_fd, select.POLLIN)

    def drive(self, gen: PQGen[RV], interval: float | None, timeout: float | None) -> RV:
        """Resume the generator whenever the server has something for it, until it returns."""
        self._interval, self._give_up_at, self._is_cancelled = interval, None, False
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._is_armed = False
        if interval is not None or timeout is not None:
            self._arm()
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
        if state != self._state:
            self._state = state
            # Wait.R is 1 and Wait.W is 2, in every release of psycopg 3.
            events = (select.POLLIN if state & 1 else 0) | (select.POLLOUT if state & 2 else 0)
            self._quick_poller.register(self._socket, events)
            self._poller.register(self._socket, events)
        interrupts = self._interrupts
        if not self._is_armed and interrupts.ending is None and not interrupts.is_cancel_pending:
            for _fd, bits in self._quick_poller.poll(_UNARMED):
                return self._ready_to(bits)
        while True:
            if interrupts.ending is not None or interrupts.is_cancel_pending:
                self._cancel_if_asked()
            if not self._is_armed:
                self._arm()
            ready = 0
            for fd, bits in self._poller.poll(self._time_left()):
                ready |= self._ready(fd, bits)
            if ready:
                return ready
            now = time.monotonic()
            if self._give_up_at is not None and now >= self._give_up_at:
                self._give_up()
            if self._interval is not None or (self._deadline is not None and now >= self._deadline):
                return 0

    def _arm(self) -> None:
        self._is_armed = True
        self._runtime.latch.arm()
        if self._channel_fd != self._runtime.channel.fileno():
            self._watch_channel()

    def _time_left(self) -> float | None:
        """Return milliseconds, None for no end."""
        if self._interval is None and self._deadline is None and self._give_up_at is None:
            return None
        now = time.monotonic()
        ends = (self._deadline, self._give_up_at, None if self._interval is None else now + self._interval)
        return max(min(end for end in ends if end is not None) - now, 0) * 1000

    def _watch_channel(self) -> None:
        """Watch the channel as it is now; its connection ends with the host, and its number may be somebody else's then."""
        if self._channel_fd >= 0:
            self._poller.unregister(self._channel_fd)
        self._channel_fd = self._runtime.channel.fileno()
        if self._channel_fd >= 0:
            self._poller.register(self._channel_fd, select.POLLIN)

    def _ready(self, fd: int, bits: int) -> int:
        runtime = self._runtime
        if fd == self._socket:
            return self._ready_to(bits)
        if fd == runtime.latch.read_fd:
            runtime.latch.drain()
        elif fd == runtime.lifeline_fd:
            runtime.exit_on_host_death()
        else:
            # Read even now, so that the host need not keep a long queue for a long query.
            runtime.channel.receive()
            if runtime.channel.fileno() < 0:
                self._watch_channel()
        return 0

    def _ready_to(self, bits: int) -> int:
        if bits & ~(select.POLLIN | select.POLLOUT):
            return self._state  # hung up or failed: libpq finds out why when it reads or writes
        return (1 if bits & select.POLLIN else 0) | (2 if bits & select.POLLOUT else 0)

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


class AsyncWorkerCursor(RefusesListen, psycopg.AsyncCursor[Any]):
    """psycopg's asynchronous cursor, checked for LISTEN."""

    __slots__ = ()


class AsyncWorkerConnection(WatchedConnection, psycopg.AsyncConnection[Any]):
    """The one connection of an async worker. Cancelling a task cancels its query; that is psycopg's own doing.

    While no query runs, the event loop watches the socket through a descriptor of its own:
    psycopg registers the socket itself for each query, and one descriptor has one reader.
    """

    _cursors: type[psycopg.AsyncCursor[Any]]
    _loop: asyncio.AbstractEventLoop
    #: A duplicate of the socket; -1 while there is none.
    _idle_fd: int = -1
    _is_watched: bool = False
    _is_watch_due: bool = False

    def adopt(self, runtime: Runtime) -> None:
        """Become the worker's connection."""
        self._watch_for(runtime)
        self.cursor_factory = AsyncWorkerCursor
        self._loop = asyncio.get_running_loop()
        self._idle_fd = os.dup(self.pgconn.socket)
        self.watch_idle()

    @property
    def cursor_factory(self) -> type[psycopg.AsyncCursor[Any]]:
        """The class of the cursors; one of the author's choice refuses LISTEN as well."""
        return self._cursors

    @cursor_factory.setter
    def cursor_factory(self, factory: type[psycopg.AsyncCursor[Any]]) -> None:
        self._cursors = refusing(factory) if self._runtime is not None else factory

    async def close(self) -> None:
        """Close as psycopg does."""
        self.stop_watching()
        await super().close()

    def watch_idle(self) -> None:
        """Have the event loop look at what arrives, unless a query runs; its end asks again."""
        self._is_watch_due = False
        if self._is_watched or self._idle_fd < 0:
            return
        if self.closed:
            self.note_loss()
            self.stop_watching()
        elif not self.lock.locked():
            self._is_watched = True
            self._loop.add_reader(self._idle_fd, self._arrived)

    def stop_watching(self) -> None:
        """Watch no longer, for good."""
        self._pause_watch()
        if self._idle_fd >= 0:
            os.close(self._idle_fd)
            self._idle_fd = -1

    def look(self) -> bool:
        """Take in what arrived on the idle connection; return whether it stands. NB: similar code in WorkerConnection."""
        return not self.lock.locked() and not self.closed and self.take_in()

    def _pause_watch(self) -> None:
        if self._is_watched:
            self._is_watched = False
            self._loop.remove_reader(self._idle_fd)

    def _arrived(self) -> None:
        if self.lock.locked():
            self._pause_watch()  # a query is about to be sent
        elif self.closed or not self.take_in():
            self.note_loss()
            self.stop_watching()

    async def wait(self, gen: PQGen[RV], interval: float | None = None, timeout: float | None = None) -> RV:
        """Drive one of psycopg's generators to its end; undo a LISTEN that was in it, and refuse it."""
        try:
            result = await self._wait(gen, interval, timeout)
        except psycopg.Error:
            if (listened := self._take_listened()) is not None:
                await self._wait(self._unlisten(), None, None)
            if listened:
                raise refused_listen() from None
            raise
        if self._take_listened():
            await self._wait(self._unlisten(), None, None)
            raise refused_listen()
        return result

    async def _wait(self, gen: PQGen[RV], interval: float | None, timeout: float | None) -> RV:
        """Wait without psycopg's wake-ups."""
        options = {"interval": _NO_INTERVAL if interval is None else interval}
        if timeout is not None:
            options["timeout"] = timeout
        if self._runtime is None:
            return await super().wait(gen, **options)
        interrupts = self._runtime.interrupts
        self._pause_watch()
        interrupts.running_queries += 1
        try:
            return await super().wait(gen, **options)
        except psycopg.Error as error:
            self.note_loss(error)
            part = self._runtime.async_part
            if self.is_lost and part is not None and interrupts.is_due and not interrupts.is_delivered:
                part.deliver()
            raise
        finally:
            interrupts.running_queries -= 1
            if not interrupts.running_queries:
                interrupts.is_cancel_pending = False
            if not self._is_watch_due:
                # Not now: the connection's lock is still held, and most often the next query follows at once.
                self._is_watch_due = True
                self._loop.call_soon(self.watch_idle)
