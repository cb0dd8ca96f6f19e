"""The worker face: what a background worker's function imports.

Importing does no work and is cheap; every function works in a worker process only. What
changes while a worker lives is a function, so that ``from bgworker.worker import ...``
cannot go stale. The blocking functions refuse to run in an event loop and name their twin
in ``bgworker.aio``.

A worker::

    from bgworker import spi, worker

    def drain(main_arg):
        worker.unblock_signals()
        worker.connect()
        for _ in worker.latch_loop(timeout=10.0, wait_event="DrainMain"):
            if worker.config_reload_pending():
                worker.process_config_file()
            with spi.transaction():
                spi.execute("DELETE FROM orders WHERE done")

Signals (C21, C22): blocked when the function is entered. Once unblocked, SIGTERM raises
``Terminated`` - at the next wait, SPI call or ``check_for_interrupts()``, and at once in plain
code outside of ``spi.transaction()`` and ``hold_interrupts()`` - after cancelling a query that
runs; the exit code is 1, however the function ends after that. SIGINT cancels a running
query and is ignored otherwise; SIGHUP makes ``config_reload_pending()`` true and sets the
latch; SIGUSR1 sets the latch; SIGQUIT ends the process at once. A handler that the worker
installs itself, before it unblocks, is left alone; it may call ``set_latch()``.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any, overload

from bgworker._worker.connection import BGWORKER_BYPASS_ALLOWCONN, BGWORKER_BYPASS_ROLELOGINCHECK
from bgworker._worker.interrupts import Deferred, Held, Terminated
from bgworker._worker.latch_loop import LatchLoop, Timeout
from bgworker._worker.notifications import Notification
from bgworker._worker.refusals import UsageError, refuse_in_event_loop, refuse_outside_main_thread
from bgworker._worker.runtime import Runtime, current
from bgworker._worker.wait import (
    WL_EXIT_ON_PM_DEATH,
    WL_LATCH_SET,
    WL_POSTMASTER_DEATH,
    WL_SOCKET_READABLE,
    WL_SOCKET_WRITEABLE,
    WL_TIMEOUT,
)
from bgworker._worker.wait import wait_latch as _wait_latch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    import psycopg

    from bgworker._handle import BackgroundWorkerHandle
    from bgworker._spec import BackgroundWorker
    from bgworker._worker.at_times import Tick
    from bgworker._worker.segment import Segment

__all__ = [
    "BGWORKER_BYPASS_ALLOWCONN",
    "BGWORKER_BYPASS_ROLELOGINCHECK",
    "WL_EXIT_ON_PM_DEATH",
    "WL_LATCH_SET",
    "WL_POSTMASTER_DEATH",
    "WL_SOCKET_READABLE",
    "WL_SOCKET_WRITEABLE",
    "WL_TIMEOUT",
    "Notification",
    "Segment",
    "Terminated",
    "Tick",
    "UsageError",
    "block_signals",
    "check_for_interrupts",
    "config_reload_pending",
    "connect",
    "hold_interrupts",
    "initialize_connection",
    "initialize_connection_by_oid",
    "latch_loop",
    "my_bgworker_entry",
    "notifications",
    "process_config_file",
    "progress",
    "ready",
    "register_dynamic_background_worker",
    "report_activity",
    "reset_latch",
    "set_latch",
    "settings",
    "shared_memory",
    "unblock_signals",
    "wait_latch",
]


if not TYPE_CHECKING:  # a type checker would take every misspelled name for an object

    def __getattr__(name: str) -> Any:
        if name == "Segment":  # for annotations; most workers share no memory
            from bgworker._worker.segment import Segment

            return Segment
        if name == "Tick":
            from bgworker._worker.at_times import Tick

            return Tick
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def my_bgworker_entry() -> BackgroundWorker:
    """Return this worker's registration (MyBgworkerEntry, C12); a copy, so nothing done to it reaches the host."""
    worker = current().worker
    return dataclasses.replace(worker, bgw_main_arg=copy.deepcopy(worker.bgw_main_arg))


# -- signals ---------------------------------------------------------------------------------------------------------


def unblock_signals() -> None:
    """Let signals through (C21); those that came before arrive now, so this may raise ``Terminated``."""
    refuse_outside_main_thread("unblock_signals()")
    current().interrupts.unblock()


def block_signals() -> None:
    """Block signals again, as they were when the function was entered (C21)."""
    refuse_outside_main_thread("block_signals()")
    current().interrupts.block()


def check_for_interrupts() -> None:
    """Raise ``Terminated`` if the worker has been told to end, or its connection has gone (CHECK_FOR_INTERRUPTS); cheap."""
    current().check_for_interrupts()


def hold_interrupts() -> AbstractContextManager[None]:
    """Return a block in which SIGTERM raises nothing and no query is cancelled; its end raises what came meanwhile.

    May be nested. A wait inside it still returns when SIGTERM comes, because the latch is set.
    """
    return Held(current().interrupts)


# -- the latch -------------------------------------------------------------------------------------------------------


def wait_latch(timeout: float | None = None, events: int | None = None, socket: Any = None, wait_event: str = "") -> int:
    """Sleep until something happens; return the ``WL_`` bits of what did (C23, C24).

    Sleeps on descriptors alone: nothing wakes the process before there is something to do.
    A latch that is set already returns at once, and stays set until ``reset_latch()``. Reset it
    before looking for work, never after, or ``latch_loop()`` does it for you.

    Args:
        timeout: Seconds; None waits for ever, less than 0 counts as 0.
        events: Bits to wait for: WL_LATCH_SET, WL_TIMEOUT and WL_EXIT_ON_PM_DEATH unless given. With
            WL_POSTMASTER_DEATH in place of the last, the death of the host is returned and not the worker's end.
        socket: A descriptor, or what has ``fileno()``, for WL_SOCKET_READABLE and WL_SOCKET_WRITEABLE.
        wait_event: What the status view shows meanwhile (C28).

    Raises:
        Terminated: The worker has been told to end.
        UsageError: Inside a transaction, in an event loop, or outside of the main thread.
    """
    return _wait_latch(current(), timeout, events, socket, wait_event)


def set_latch() -> None:
    """Set the latch: the wait returns. Safe in a signal handler, and in any thread."""
    current().latch.set()


def reset_latch() -> None:
    """Clear the latch. Look for work after this, never before."""
    current().latch.reset()


@overload
def latch_loop(timeout: Timeout = None, wait_event: str = "") -> Iterator[int]: ...
@overload
def latch_loop(*, at: str, wait_event: str = "") -> Iterator[Tick]: ...
def latch_loop(timeout: Timeout = None, wait_event: str = "", *, at: str | None = None) -> Iterator[int]:
    """Return the loop of a worker: ``for _ in worker.latch_loop(timeout=10.0): work()``.

    The first pass runs at once. Before each later one it waits until the latch is set or the
    timeout has passed since the end of the pass before, resets the latch, and raises
    ``Terminated`` if the worker has been told to end. It never ends by itself; ``break`` and
    ``return`` leave it.

    With ``at="*/15 * * * *"`` it waits for the times of a cron expression, or for the latch, before the
    first pass too. Times that come while the pass of an earlier one still runs are skipped, which the log says.

    Args:
        timeout: Seconds between passes, None for none, or a function that returns them: it is asked before
            each wait, so ``lambda: worker.settings().naptime`` follows a reload.
        wait_event: What the status view shows while it waits.
        at: A cron expression of five fields, in the system's local time; in place of ``timeout``.

    Returns:
        An iterator of the ``WL_`` bits that began each pass; 0 for the first. With ``at`` they are a ``Tick``, whose ``at`` is
        the time that has come, None if only the latch was set, and whose ``missed`` counts those that were skipped before it.

    Raises:
        UsageError: ``at`` is no cron expression, or there is a timeout beside it.
    """
    refuse_in_event_loop("latch_loop()", "bgworker.aio.latch_loop()")
    if at is not None:
        from bgworker._worker.at_times import TimesLoop, refuse_timeout

        refuse_timeout(timeout)
        return TimesLoop(current(), at, wait_event)
    return LatchLoop(current(), timeout, wait_event)


def notifications() -> list[Notification]:
    """Return the notifications on this worker's ``wake_on`` channels that arrived since the last call, oldest first.

    One with ``may_have_missed`` stands for any number that were lost: read the state they would have told of.
    """
    runtime = current()
    with Deferred(runtime.interrupts):
        runtime.channel.receive()
    return runtime.channel.notifications.take()


# -- settings and activity -------------------------------------------------------------------------------------------


def config_reload_pending() -> bool:
    """Whether the host has reloaded its configuration since ``process_config_file()`` (C25)."""
    return current().interrupts.is_reload_pending


def process_config_file() -> None:
    """Take over the settings that the host has now (ProcessConfigFile, C25).

    A table that does not fit its plugin's type is refused with a WARNING, and its old values stay.
    """
    refuse_in_event_loop("process_config_file()", "bgworker.aio.process_config_file()")
    runtime = current()
    # Before asking: a reload that comes during the request must be seen as a new one.
    runtime.interrupts.is_reload_pending = False
    runtime.settings.replace(runtime.channel.request("settings").get("settings", {}))


def settings(name: str | None = None) -> Any:
    """Return the settings of the plugin that this worker belongs to, or of another one.

    They are an instance of the type that the plugin's ``bgworker_settings`` gave; the plain
    ``[settings.NAME]`` table as a dict for a module that is no plugin. The same object until
    ``process_config_file()``.
    """
    owned = current().settings
    return owned.own() if name is None else owned.of(name)


def report_activity(state: str, text: str = "") -> None:
    """Show in the status view what the worker is doing (pgstat_report_activity, C28); costs microseconds, asks nobody.

    Args:
        state: One word, such as ``running`` or ``idle``; 32 bytes are kept.
        text: What exactly, such as the query or the order; a few hundred bytes are kept.
    """
    runtime = current()
    with Deferred(runtime.interrupts):
        runtime.activity.report(state, text)
        runtime.watchdog.moves()


def progress() -> None:
    """Say that this worker gets on with its work: one with a ``watchdog`` is stuck if it does nothing of the kind for so long.

    So do ``report_activity()`` and every wait on the latch. Without a watchdog it does nothing; with one it
    tells the host at most four times in each span. Any thread may call it.
    """
    runtime = current()
    with Deferred(runtime.interrupts):
        runtime.watchdog.moves()


def ready() -> None:
    """Say that others may count on this worker: what comes after it with ``after = ["NAME:ready"]`` is started now.

    For a worker with ``ready = "notify"``, which has its start_timeout for it; any other is ready when it has been
    started, and this does nothing. Later calls do nothing either. Any thread may call it.
    """
    runtime = current()
    if runtime.worker.says_when_ready:
        with Deferred(runtime.interrupts):
            runtime.channel.send({"type": "ready"})


# -- shared memory ---------------------------------------------------------------------------------------------------


def shared_memory(name: str, size: int | None = None, initialise: Callable[[Segment], object] | None = None) -> Segment:
    """Attach to a segment of memory that workers share; the first one makes it (C31).

    It stays attached until the process ends: who shares memory goes down with a crash of any
    of the others, and all of them start again with new memory. A second call with the same
    name returns the same object.

    Args:
        name: 1 to 63 characters out of A-Z, a-z, 0-9, ``_``, ``.`` and ``-``; one name is one segment in the whole host.
        size: In bytes. All who give it must agree; None attaches to what is there.
        initialise: Called with the segment, by the first one only, while nobody else sees it; the
            memory is zero then. If it raises or dies, the next one to attach begins anew.

    Returns:
        The segment: ``buffer``, a writable memoryview; ``lock(name)``, for a ``with`` block; ``name``, ``size``, ``generation``.

    Raises:
        SharedMemoryError: It does not exist and no size was given, has another size, or is more than ``max_shared_memory``.
        UsageError: In an event loop, or outside of the main thread.
        HostNotRunning: There is no host.
    """
    runtime = _main_thread_runtime("shared_memory()")
    from bgworker._worker import segment

    with Deferred(runtime.interrupts):
        params = segment.request_of(runtime, name, size)
        if params is not None:
            segment.take(runtime, runtime.channel.request("attach_segment", params, segment.REPLY_TIMEOUT))
    found = runtime.segments[name]
    found.prepare(initialise, may_be_first=size is not None or initialise is not None)
    return found


# -- the database ----------------------------------------------------------------------------------------------------


def connect() -> psycopg.Connection[Any]:
    """Open the worker's connection to the configured database as the configured role, read-write.

    It is the worker's one connection, as ``initialize_connection()`` opens it; errors are the same.
    """
    from bgworker._worker import connection

    runtime = _main_thread_runtime("connect()", "connect_database()")
    return connection.connect(runtime, connection.plan(runtime, None, None, 0, read_write=True))


def initialize_connection(dbname: str | None = None, username: str | None = None, flags: int = 0) -> psycopg.Connection[Any]:
    """Open the worker's one connection (BackgroundWorkerInitializeConnection, C15-C19).

    It is a psycopg connection in autocommit; ``bgworker.spi`` uses the same one. What the
    server refuses is raised as psycopg's own error.

    Args:
        dbname: The database; None for no particular one (C16): the configured one, read-only by default, for the shared
            catalogs. ``connect()`` is the configured one to work in.
        username: The role; None for the superuser made by initdb, or the configured role of an external server (C17).
        flags: BGWORKER_BYPASS_ALLOWCONN (C18), BGWORKER_BYPASS_ROLELOGINCHECK (C19). Both need a configured role that is
            a superuser: the worker logs in as that one, and becomes ``username`` with SET SESSION AUTHORIZATION.

    Raises:
        psycopg.Error: The server refused; ``sqlstate`` says why, where the server's words are English.
        HostError: The database could not be opened for BGWORKER_BYPASS_ALLOWCONN.
        UsageError: The worker lacks BGWORKER_BACKEND_DATABASE_CONNECTION (C06), or has connected already (C15).
    """
    from bgworker._worker import connection

    runtime = _main_thread_runtime("initialize_connection()")
    return connection.connect(runtime, connection.plan(runtime, dbname, username, flags))


def initialize_connection_by_oid(dboid: int = 0, useroid: int = 0, flags: int = 0) -> psycopg.Connection[Any]:
    """Open the worker's one connection, database and role given by oid (BackgroundWorkerInitializeConnectionByOid).

    0 means what None means to ``initialize_connection()``. The names are looked up over a
    short connection to the configured database.
    """
    from bgworker._worker import connection

    runtime = _main_thread_runtime("initialize_connection_by_oid()")
    dbname, username = connection.names_of(runtime, dboid, useroid)
    return connection.connect(runtime, connection.plan(runtime, dbname, username, flags))


# -- other workers ---------------------------------------------------------------------------------------------------


def register_dynamic_background_worker(worker: BackgroundWorker, if_absent: bool = False) -> BackgroundWorkerHandle:
    """Register another worker with the host; return its handle (C03, C33).

    Args:
        worker: The registration. ``bgw_notify_pid=os.getpid()`` has this worker's latch set when it starts and exits.
        if_absent: When a worker of this name is registered already, return its handle in place of a second one.

    Raises:
        NoFreeSlot: Every slot is taken; try again later.
        RegistrationError: The registration was refused.
        HostNotRunning: There is no host.
    """
    refuse_in_event_loop("register_dynamic_background_worker()", "bgworker.aio.register_dynamic_background_worker()")
    from bgworker._control import operations
    from bgworker._handle import BackgroundWorkerHandle
    from bgworker._spec import sanity_check

    channel = current().channel
    sanity_check(worker, is_dynamic=True)  # the host checks, too; here the message needs no host and names what is no JSON
    operation = operations.register(worker, if_absent=if_absent)
    slotno, generation = operation.read(channel.request(operation.method, operation.params, operation.timeout))
    return BackgroundWorkerHandle._make(channel, slotno, generation)


def _main_thread_runtime(name: str, twin: str = "") -> Runtime:
    refuse_in_event_loop(name, f"bgworker.aio.{twin or name}")
    refuse_outside_main_thread(name)
    return current()
