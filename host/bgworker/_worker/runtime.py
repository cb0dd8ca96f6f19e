"""The one Runtime of a worker process: what the faces share.

The only module-level state of a worker. ``current()`` is how a face finds it; outside of a
worker, and in a process forked from one, there is none and every face says so.
"""

from __future__ import annotations

import os
import select
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from bgworker._spec import BackgroundWorker
from bgworker._worker.activity import Activity
from bgworker._worker.channel import Channel
from bgworker._worker.exit import leave
from bgworker._worker.interrupts import Interrupts
from bgworker._worker.latch import Latch
from bgworker._worker.log import say
from bgworker._worker.refusals import UsageError
from bgworker._worker.settings import Settings
from bgworker._worker.watchdog import Watchdog

if TYPE_CHECKING:
    from bgworker._plugins.manager import PluginHost
    from bgworker._worker.async_part import AsyncPart
    from bgworker._worker.database import AsyncWorkerConnection, WorkerConnection
    from bgworker._worker.segment import Segment


@dataclass(frozen=True)
class DatabaseFacts:
    """How the host says the database is reached; None in the runtime when there is no database."""

    kind: str
    #: Everything a connection needs but the worker's own choices. Has the password: never printed, never in an error.
    conninfo: str
    #: The configured role; None leaves it to the conninfo.
    role: str | None
    #: The conninfo leads to a transaction pooler: each transaction may run in another session of the server, which is
    #: shared with strangers. Nothing that lasts longer than a transaction may be left in it.
    is_pooled: bool = False
    #: For a connection that needs a session of its own; "" where nothing leads to one. Has the password, too.
    direct_conninfo: str = ""

    def session_conninfo(self, what: str) -> str:
        """Return the conninfo for a connection that leaves something in its session: SET, a lock, LISTEN.

        Args:
            what: What needs it, for the error: "a session-level lock".

        Raises:
            UsageError: Only a transaction pooler is known.
        """
        if not self.is_pooled:
            return self.direct_conninfo or self.conninfo
        if not self.direct_conninfo:
            raise UsageError(
                f"{what} cannot be used through a transaction pooler",
                "[database] url leads to one: each transaction may run in another session of the server, which is shared with "
                "other clients.",
                "Give direct_url in [database]: a url that leads to the server itself, or to a pooler in session mode.",
            )
        return self.direct_conninfo


@dataclass(eq=False)
class Runtime:
    """Everything that belongs to this life of this worker."""

    worker: BackgroundWorker
    slotno: int
    generation: int
    latch: Latch
    interrupts: Interrupts
    channel: Channel
    activity: Activity
    settings: Settings
    #: Tells the host that the worker moves, if it has a watchdog.
    watchdog: Watchdog = field(init=False)
    #: Shows end of file when the host has died; -1 for a worker without a host.
    lifeline_fd: int
    database: DatabaseFacts | None
    #: The loader's PluginHost, inherited; None in a process that was executed afresh.
    plugins: PluginHost | None = None
    #: The one connection (C15); a blocking worker has the first, an async worker the second.
    connection: WorkerConnection | None = None
    async_connection: AsyncWorkerConnection | None = None
    #: A singleton worker's connection is open before its function runs; true until the function has asked for it.
    has_unclaimed_connection: bool = False
    #: Opened that connection, if the worker is async.
    opener: WorkerConnection | None = None
    #: The open ``spi.transaction()``, or None.
    transaction: object | None = None
    #: What an async worker adds to its event loop; None in a blocking one.
    async_part: AsyncPart | None = None
    #: The shared memory that this process is attached to, by name.
    segments: dict[str, Segment] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.watchdog = Watchdog(self.channel, self.worker.watchdog)

    def exit_on_host_death(self) -> NoReturn:
        """Leave at once: nothing of the worker may outlive its host (C24). No exit callbacks, as proc_exit in PostgreSQL's."""
        self.interrupts.leave()
        say("FATAL", f'terminating background worker "{self.worker.bgw_name}" due to unexpected host exit')
        leave(1)

    def check_for_interrupts(self) -> None:
        """Raise Terminated if the worker has been told to end, or its idle connection turns out to have ended."""
        connection = self.connection or self.async_connection
        if connection is not None and self.interrupts.ending is None and _is_ready(connection):
            connection.look()
        self.interrupts.check()

    def close_connection(self) -> None:
        """Say goodbye to the server, so that its log shows no lost connection."""
        connection = self.connection or self.async_connection
        if connection is not None:
            connection.pgconn.finish()  # close() of an asynchronous one would need its event loop, and does no more


def _is_ready(connection: WorkerConnection | AsyncWorkerConnection) -> bool:
    """Whether something has arrived on a connection that stands and that nobody is using; one system call."""
    if connection.closed or connection.lock.locked():
        return False
    poller = select.poll()
    poller.register(connection.pgconn.socket, select.POLLIN)
    return bool(poller.poll(0))


_current: Runtime | None = None
_is_fork_hooked = False
_left_to_parent: Runtime | None = None


def current() -> Runtime:
    """Return the runtime of this worker.

    Raises:
        UsageError: This process is no background worker.
    """
    if _current is None:
        raise UsageError(
            "this process is not a background worker",
            "The faces of bgworker.worker, bgworker.spi and an async worker's bgworker.aio exist in a worker process only; "
            "a process that a worker has forked is none.",
            'Run the function as a worker; "bgworker exec LIBRARY:FUNCTION" does so in this terminal.',
        )
    return _current


def install(runtime: Runtime | None) -> None:
    """Make this the process's runtime; None ends the state, for a worker that ran in a terminal."""
    global _current, _is_fork_hooked
    _current = runtime
    if not _is_fork_hooked:
        _is_fork_hooked = True
        os.register_at_fork(after_in_child=_forget)


def _forget() -> None:
    """Take the worker out of a child that its author forks.

    A signal to the child must not wake the parent's latch (it would: the pipe is shared), and
    two processes must not read one channel.
    """
    global _current, _left_to_parent
    runtime, _current = _current, None
    if runtime is not None:
        # Kept alive: collected here, its connection would say goodbye to the server on the socket that the parent uses.
        _left_to_parent = runtime
        signal.set_wakeup_fd(-1)
        runtime.interrupts.uninstall()
        runtime.latch.close()
        runtime.channel.close()
