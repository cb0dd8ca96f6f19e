"""The client: a program's connection to the running host, for any number of threads.

On the path of ``status --json``, so nothing dear is imported before it is needed: no
dataclasses, no asyncio, no msgspec, no registration. What a request means is in ``operations``,
how threads share the connection in ``shared_connection``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Self

from bgworker._control import operations
from bgworker._control.shared_connection import SharedConnection
from bgworker._control.transport import attach, fill_activity
from bgworker.errors import HostError, HostNotRunning, ProtocolError, RegistrationError, WaitTimeout, WorkerNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bgworker._control.session import Greeting
    from bgworker._control.views import HostStatus, SlotStatus
    from bgworker._handle import BackgroundWorkerHandle
    from bgworker._spec import BackgroundWorker
    from bgworker.hookspecs import Event

__all__ = ["Client", "EventStream", "connect", "data_directory_of"]


def connect(data_directory: str | os.PathLike[str] | None = None) -> Client:
    """Connect to the running host.

    Args:
        data_directory: The host's; None looks where every command looks: BGWORKER_DATA,
            STATE_DIRECTORY, workers.toml, ``data``.

    Raises:
        HostNotRunning: Nobody listens there; the message names the absolute path that was tried.
        PermissionDenied: This user may not connect.
        WaitTimeout: The host is there and does not answer.
    """
    return Client._open(data_directory_of(data_directory))


def data_directory_of(data_directory: str | os.PathLike[str] | None) -> str:
    """Return the absolute path of the data directory that every command would take."""
    from bgworker._config.locate import locate

    return locate(None, None if data_directory is None else os.fspath(data_directory)).data_directory


class Client:
    """A connection to the host; made by ``connect()``, closed by ``close()`` or a ``with`` block.

    Thread-safe: a long wait in one thread holds up no other. Refuses use in a forked child,
    which must connect for itself. NAME below is a worker's name, a slot, or a handle (or its
    text); an ambiguous name is refused with the list.

    Every method raises HostNotRunning when the host is gone, and WaitTimeout when it does not
    answer although it is there.
    """

    def __init__(self, connection: SharedConnection) -> None:
        self._connection = connection

    @classmethod
    def _open(cls, data_directory: str) -> Client:
        return cls(SharedConnection(attach(data_directory)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<bgworker.Client of {self._connection.data_directory!r}>"

    @property
    def data_directory(self) -> str:
        """Absolute path of the host's data directory."""
        return self._connection.data_directory

    @property
    def host_pid(self) -> int:
        """The host's process."""
        return self._connection.greeting.pid

    @property
    def max_worker_processes(self) -> int:
        """How many slots there are."""
        return self._connection.greeting.max_worker_processes

    # -- workers ---------------------------------------------------------------------------------------------------------

    def register_dynamic_background_worker(self, worker: BackgroundWorker, if_absent: bool = False) -> BackgroundWorkerHandle:
        """Register a worker while the host runs (C03, C33); it may not have been started yet when this returns.

        Args:
            worker: What to run. With ``bgw_notify_pid``, which must be a process with a connection
                to the host, that process gets SIGUSR1 when the worker starts and exits (C13): only
                if its SIGUSR1 does not have the default action, which would kill it.
            if_absent: Leave a registered worker of the same bgw_name as it is, and return its handle.

        Raises:
            NoFreeSlot: Every slot is taken (C14); the same call can succeed later.
            RegistrationError: The registration was refused.
        """
        try:
            return self._handle(self._do(operations.register(worker, if_absent=if_absent)))
        except ProtocolError as error:
            raise explain_refusal(worker, error) from None

    def find(self, name: object) -> BackgroundWorkerHandle:
        """Return the handle of a registered worker.

        Raises:
            WorkerNotFound: None answers to the name, or several do.
        """
        return self._handle(self._do(operations.find(name)))

    def handle(self, text: str) -> BackgroundWorkerHandle:
        """Return the handle whose ``str()`` this is. Asks nothing: an outdated one says STOPPED.

        Raises:
            WorkerNotFound: This is not the text of a handle of this host.
        """
        return self._handle(checked_handle(text, self.max_worker_processes))

    def start(self, name: object) -> BackgroundWorkerHandle:
        """Start a worker that waits for its restart, or a static one that has finished."""
        return self._handle(self._do(operations.start(name)))

    def restart(self, name: object) -> BackgroundWorkerHandle:
        """Stop a worker and start it again, whatever its restart time and exit code."""
        return self._handle(self._do(operations.restart(name)))

    def terminate(self, name: object, *, by_operator: bool = False) -> BackgroundWorkerHandle:
        """Stop a worker for good (C35); it returns before the worker has gone.

        Args:
            name: Which.
            by_operator: Say in the status that a person did it.
        """
        return self._handle(self._do(operations.terminate(name, by_operator=by_operator)))

    def signal(self, name: object, signal: str | int) -> BackgroundWorkerHandle:
        """Send a signal, such as ``"SIGUSR1"``, to a worker's process."""
        return self._handle(self._do(operations.send_signal(name, signal_name(signal))))

    def wait(self, name: object, event: str, timeout: float | None = None) -> dict[str, Any]:
        """Wait for a worker's "startup" or "shutdown" and return status, pid and the host's reason, as on the wire.

        Raises:
            WaitTimeout: The timeout, in seconds, passed; the worker goes on.
        """
        return self._do(operations.wait(name, event, timeout))

    # -- the host --------------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return everything there is to know, as ``bgworker status --json`` prints it."""
        status = self._do(operations.status())
        fill_activity(status, self._connection.tables)
        return status

    def slots(self) -> list[SlotStatus]:
        """Return the slots in use."""
        from bgworker._control.views import slots_from

        return slots_from(self.status())

    def host(self) -> HostStatus:
        """Return how the host does."""
        from bgworker._control.views import host_from

        return host_from(self.status())

    def ping(self) -> None:
        """Return when the host has answered."""
        self._do(operations.ping())

    def reload(self, config_path: str | None = None) -> dict[str, Any]:
        """Make the host read its configuration anew; return ``changes`` and ``warnings`` once they are in effect.

        Args:
            config_path: The file that is meant, as an absolute path; None for whichever the host runs.

        Raises:
            ConfigurationError: The configuration has errors, all in the detail, or is not the one that is meant; the old one
                stays in force.
        """
        return self._do(operations.reload(config_path))

    def plan(self, config_path: str | None = None) -> dict[str, Any]:
        """Return what ``reload()`` would do, and do nothing: ``changes``, ``unchanged``, ``settings``, ``plugins``, ``warnings``.

        Args:
            config_path: As for ``reload()``, which would be refused.

        Raises:
            ConfigurationError: The configuration has errors, all in the detail; a reload would be refused.
        """
        return self._do(operations.plan(config_path))

    def scale(self, name: str, count: int) -> dict[str, Any]:
        """Start or stop instances of a worker of workers.toml until there are so many; does not wait for them.

        Args:
            name: The worker's, without the number of an instance.
            count: From 1 to 1000. A reload keeps it, unless ``instances`` in the file changes.

        Returns:
            ``started`` and ``stopped``, names of instances.

        Raises:
            WorkerNotFound: No worker of this name has instances.
            NoFreeSlot: There are not enough slots; nothing was done.
        """
        return self._do(operations.scale(name, count))

    def upgrade(self) -> dict[str, Any]:
        """Have the plugins loaded anew, with the configuration in force; workers have the new code when they are restarted.

        Raises:
            PluginError: A plugin is broken that was not; the old code stays in use.
        """
        return self._do(operations.upgrade())

    def reexec(self) -> dict[str, Any]:
        """Let the host execute itself anew, as it is installed now; workers, connections, waits and handles stay.

        Returns:
            ``old_version``, ``version``, ``pid``, ``blind_ms``, and how many ``workers``, ``clients`` and ``waits`` it took along.

        Raises:
            HostError: It stays as it was, with the reason.
        """
        return self._do(operations.reexec())

    def stop(self, mode: str = "fast") -> str:
        """Begin to shut the host down: smart, fast or immediate (C39). ``wait_until_gone()`` waits for the end."""
        return self._do(operations.stop(mode))

    def wait_until_gone(self, timeout: float | None = None) -> None:
        """Wait until the host has ended.

        Raises:
            WaitTimeout: The timeout, in seconds, passed.
        """
        try:
            end = self._connection.wait_until_gone(operations.checked_timeout(timeout))
        except WaitTimeout:
            raise WaitTimeout("timed out while waiting for the host to end", "It goes on as it was.") from None
        if not isinstance(end, HostNotRunning):
            raise end

    def events(self, *, notifications: bool = False) -> EventStream:
        """Return what happens from now on, as an iterator over a connection of its own.

        Each event is a dictionary, the same that the hook ``bgworker_event`` gets.

        Args:
            notifications: Whether the notifications on ``wake_on`` channels are events, too: cut short, and a few a second.
        """
        self._connection.check_usable()
        return EventStream(self, SharedConnection(attach(self.data_directory)), notifications=notifications)

    def is_host_alive(self) -> bool:
        """Whether the host that this client is connected to lives; does not ask it."""
        return self._connection.is_host_alive()

    def close(self) -> None:
        """End the connection. Its handles are of no use any more; waits in other threads end with an error."""
        self._connection.close()

    def _do(self, operation: operations.Operation[operations.Result]) -> operations.Result:
        return operation.read(self._connection.request(operation.method, operation.params, operation.timeout))

    def _handle(self, key: operations.HandleKey) -> BackgroundWorkerHandle:
        from bgworker._handle import BackgroundWorkerHandle

        return BackgroundWorkerHandle._make(self._connection, *key)


class EventStream:
    """Events of the host in order; an iterator and a context manager, for one thread at a time.

    A stream that is not read costs the host memory, so in the end it closes one.
    """

    def __init__(self, client: Client, connection: SharedConnection, *, notifications: bool = False) -> None:
        self._client = client
        self._connection = connection
        try:
            check_same_host(connection.greeting, client.host_pid)
            # Subscribed before this returns: nothing that happens from now on is missed.
            subscription = operations.events(notifications=notifications)
            connection.request(subscription.method, subscription.params, subscription.timeout)
        except BaseException:
            connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        return self.next_event()

    def next_event(self, timeout: float | None = None) -> Event:
        """Wait for the next event.

        Raises:
            HostNotRunning: The host has ended.
            WaitTimeout: The timeout, in seconds, passed without an event.
        """
        try:
            return self._connection.next_notice(operations.checked_timeout(timeout))  # type: ignore[return-value]
        except WaitTimeout:
            raise WaitTimeout("timed out while waiting for an event of the host") from None
        except HostNotRunning:
            raise end_of_events(self._client.is_host_alive()) from None

    def fileno(self) -> int:
        """Return the descriptor to watch. Once it is readable, call ``next_event(0)`` until it raises WaitTimeout."""
        return self._connection.fileno()

    def close(self) -> None:
        """End the stream."""
        self._connection.close()


def check_same_host(greeting: Greeting, host_pid: int) -> None:
    """Refuse a second connection that has reached another host than the first.

    Raises:
        HostNotRunning: It has.
    """
    if greeting.pid != host_pid:
        raise HostNotRunning(
            "connection to the host is gone", f"Process {greeting.pid} is the host now, and was not when this client connected."
        )


def end_of_events(is_host_alive: bool) -> HostError:
    """Return why a stream of events has ended."""
    if not is_host_alive:
        return HostNotRunning("connection to the host is gone", "The host has ended, and its events with it.")
    return HostError(
        "host closed the stream of events",
        "It does so to a client that does not read them.",
        "Open a new stream, then ask for the status: what happened in between is not repeated.",
    )


def explain_refusal(worker: BackgroundWorker, error: ProtocolError) -> HostError:
    """Return the error of a registration that could not even be written down, in the terms of the registration."""
    from bgworker._spec import sanity_check

    try:
        sanity_check(worker, is_dynamic=True)
    except RegistrationError as refusal:
        return refusal
    return error


def checked_handle(text: str, slots: int) -> operations.HandleKey:
    """Return the key of a handle's text.

    Raises:
        WorkerNotFound: This is not the text of a handle of a host with so many slots.
    """
    slotno, generation = operations.parse_handle(text)
    if slotno >= slots:
        raise WorkerNotFound(f'handle "{slotno}.{generation}" names a slot that does not exist', f"The host has {slots} slots.")
    return slotno, generation


def signal_name(signal: str | int) -> str:
    """Return a signal's name as the wire has it."""
    if isinstance(signal, str):
        return signal
    from signal import Signals

    return Signals(signal).name
