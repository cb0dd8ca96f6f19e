"""The client for asyncio: the same names as ``client``, as coroutines.

No protocol of its own: ``operations`` says what is asked, ``aio_connection`` waits for it. Its
public face is ``bgworker.aio``. Must not be imported by ``client``, which has to be cheap.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Self

from bgworker._control import operations
from bgworker._control.aio_connection import AsyncConnection, attach_in_thread
from bgworker._control.client import check_same_host, checked_handle, data_directory_of, end_of_events, explain_refusal, signal_name
from bgworker._control.transport import attach, fill_activity
from bgworker._control.views import HostStatus, SlotStatus, host_from, slots_from
from bgworker._handle import AsyncBackgroundWorkerHandle
from bgworker.errors import HostNotRunning, ProtocolError, WaitTimeout

if TYPE_CHECKING:
    from bgworker._spec import BackgroundWorker
    from bgworker.hookspecs import Event

__all__ = ["AsyncClient", "AsyncEventStream", "connect"]


async def connect(data_directory: str | os.PathLike[str] | None = None) -> AsyncClient:
    """Connect to the running host; see ``bgworker.connect``."""
    return AsyncClient(AsyncConnection(await attach_in_thread(lambda: attach(data_directory_of(data_directory)))))


class AsyncClient:
    """A connection to the host for asyncio; made by ``connect()``, closed by ``close()`` or ``async with``.

    Any number of tasks of one event loop may wait at once. The methods are those of ``Client``;
    what does not wait (``handle``, ``is_host_alive``) is a plain call here too.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<bgworker.aio.AsyncClient of {self._connection.data_directory!r}>"

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

    async def register_dynamic_background_worker(
        self, worker: BackgroundWorker, if_absent: bool = False
    ) -> AsyncBackgroundWorkerHandle:
        """Register a worker while the host runs; see ``Client.register_dynamic_background_worker``."""
        try:
            return self._handle(await self._do(operations.register(worker, if_absent=if_absent)))
        except ProtocolError as error:
            raise explain_refusal(worker, error) from None

    async def find(self, name: object) -> AsyncBackgroundWorkerHandle:
        """Return the handle of a registered worker; see ``Client.find``."""
        return self._handle(await self._do(operations.find(name)))

    def handle(self, text: str) -> AsyncBackgroundWorkerHandle:
        """Return the handle whose ``str()`` this is; see ``Client.handle``."""
        return self._handle(checked_handle(text, self.max_worker_processes))

    async def start(self, name: object) -> AsyncBackgroundWorkerHandle:
        """Start a worker now; see ``Client.start``."""
        return self._handle(await self._do(operations.start(name)))

    async def restart(self, name: object) -> AsyncBackgroundWorkerHandle:
        """Stop a worker and start it again; see ``Client.restart``."""
        return self._handle(await self._do(operations.restart(name)))

    async def terminate(self, name: object, *, by_operator: bool = False) -> AsyncBackgroundWorkerHandle:
        """Stop a worker for good; see ``Client.terminate``."""
        return self._handle(await self._do(operations.terminate(name, by_operator=by_operator)))

    async def signal(self, name: object, signal: str | int) -> AsyncBackgroundWorkerHandle:
        """Send a signal to a worker's process; see ``Client.signal``."""
        return self._handle(await self._do(operations.send_signal(name, signal_name(signal))))

    async def wait(self, name: object, event: str, timeout: float | None = None) -> dict[str, Any]:
        """Wait for a worker's "startup" or "shutdown"; see ``Client.wait``."""
        return await self._do(operations.wait(name, event, timeout))

    async def status(self) -> dict[str, Any]:
        """Return everything there is to know; see ``Client.status``."""
        status = await self._do(operations.status())
        fill_activity(status, self._connection.tables)
        return status

    async def slots(self) -> list[SlotStatus]:
        """Return the slots in use."""
        return slots_from(await self.status())

    async def host(self) -> HostStatus:
        """Return how the host does."""
        return host_from(await self.status())

    async def ping(self) -> None:
        """Return when the host has answered."""
        await self._do(operations.ping())

    async def reload(self, config_path: str | None = None) -> dict[str, Any]:
        """Make the host read its configuration anew; see ``Client.reload``."""
        return await self._do(operations.reload(config_path))

    async def plan(self, config_path: str | None = None) -> dict[str, Any]:
        """Return what ``reload()`` would do; see ``Client.plan``."""
        return await self._do(operations.plan(config_path))

    async def scale(self, name: str, count: int) -> dict[str, Any]:
        """Have so many instances of a worker; see ``Client.scale``."""
        return await self._do(operations.scale(name, count))

    async def upgrade(self) -> dict[str, Any]:
        """Have the plugins loaded anew; see ``Client.upgrade``."""
        return await self._do(operations.upgrade())

    async def reexec(self) -> dict[str, Any]:
        """Let the host execute itself anew; see ``Client.reexec``."""
        return await self._do(operations.reexec())

    async def stop(self, mode: str = "fast") -> str:
        """Begin to shut the host down; see ``Client.stop``."""
        return await self._do(operations.stop(mode))

    async def wait_until_gone(self, timeout: float | None = None) -> None:
        """Wait until the host has ended; see ``Client.wait_until_gone``."""
        try:
            end = await self._connection.wait_until_gone(operations.checked_timeout(timeout))
        except WaitTimeout:
            raise WaitTimeout("timed out while waiting for the host to end", "It goes on as it was.") from None
        if not isinstance(end, HostNotRunning):
            raise end

    async def events(self, *, notifications: bool = False) -> AsyncEventStream:
        """Return what happens from now on: ``async for event in await client.events()``; see ``Client.events``."""
        self._connection.check_usable()
        connection = AsyncConnection(await attach_in_thread(lambda: attach(self.data_directory)))
        try:
            check_same_host(connection.greeting, self.host_pid)
            subscription = operations.events(notifications=notifications)
            await connection.request(subscription.method, subscription.params, subscription.timeout)
        except BaseException:
            connection.close()
            raise
        return AsyncEventStream(self, connection)

    def is_host_alive(self) -> bool:
        """Whether the host that this client is connected to lives; does not ask it."""
        return self._connection.is_host_alive()

    async def close(self) -> None:
        """End the connection; tasks that wait on it get an error."""
        self._connection.close()

    async def _do(self, operation: operations.Operation[operations.Result]) -> operations.Result:
        return operation.read(await self._connection.request(operation.method, operation.params, operation.timeout))

    def _handle(self, key: operations.HandleKey) -> AsyncBackgroundWorkerHandle:
        return AsyncBackgroundWorkerHandle._make(self._connection, *key)


class AsyncEventStream:
    """Events of the host in order; an asynchronous iterator and context manager."""

    def __init__(self, client: AsyncClient, connection: AsyncConnection) -> None:
        self._client = client
        self._connection = connection

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        return await self.next_event()

    async def next_event(self, timeout: float | None = None) -> Event:
        """Wait for the next event; see ``EventStream.next_event``."""
        try:
            return await self._connection.next_notice(operations.checked_timeout(timeout))  # type: ignore[return-value]
        except WaitTimeout:
            raise WaitTimeout("timed out while waiting for an event of the host") from None
        except HostNotRunning:
            raise end_of_events(self._client.is_host_alive()) from None

    async def close(self) -> None:
        """End the stream."""
        self._connection.close()
