"""PostgreSQL background workers for Python: the client face.

For programs outside the workers: register workers, hold handles, look at the host. What a
worker itself uses is ``bgworker.worker`` and ``bgworker.spi``; for asyncio there is
``bgworker.aio``.

Importing this package does no work and imports nothing (PEP 562): every process of the host
imports it, and so does ``bgworker status``. A name is fetched from its room when it is used.
"""

from bgworker._version import __version__

#: What type checkers take for true; importing typing for it would cost more than this whole package.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from bgworker._control.client import Client, EventStream, connect
    from bgworker._control.views import Activity, DatabaseStatus, HostStatus, SlotStatus
    from bgworker._declare import background_worker
    from bgworker._handle import BackgroundWorkerHandle, BgwHandleStatus, LastExit, WorkerPid
    from bgworker._spec import (
        BGW_DEFAULT_RESTART_INTERVAL,
        BGW_EXTRALEN,
        BGW_MAXLEN,
        BGW_NEVER_RESTART,
        BGWORKER_BACKEND_DATABASE_CONNECTION,
        BGWORKER_SHMEM_ACCESS,
        DATABASE_WORKER_FLAGS,
        BackgroundWorker,
        BgWorkerFlags,
        BgWorkerStartTime,
    )
    from bgworker.errors import (
        ConfigurationError,
        DeadlockDetected,
        HostError,
        HostNotRunning,
        NoFreeSlot,
        PermissionDenied,
        PluginError,
        ProtocolError,
        RegistrationError,
        SharedMemoryError,
        WaitTimeout,
        WorkerNotFound,
    )
    from bgworker.hookspecs import hookimpl

__all__ = [
    "BGWORKER_BACKEND_DATABASE_CONNECTION",
    "BGWORKER_SHMEM_ACCESS",
    "BGW_DEFAULT_RESTART_INTERVAL",
    "BGW_EXTRALEN",
    "BGW_MAXLEN",
    "BGW_NEVER_RESTART",
    "DATABASE_WORKER_FLAGS",
    "Activity",
    "BackgroundWorker",
    "BackgroundWorkerHandle",
    "BgWorkerFlags",
    "BgWorkerStartTime",
    "BgwHandleStatus",
    "Client",
    "ConfigurationError",
    "DatabaseStatus",
    "DeadlockDetected",
    "EventStream",
    "HostError",
    "HostNotRunning",
    "HostStatus",
    "LastExit",
    "NoFreeSlot",
    "PermissionDenied",
    "PluginError",
    "ProtocolError",
    "RegistrationError",
    "SharedMemoryError",
    "SlotStatus",
    "WaitTimeout",
    "WorkerNotFound",
    "WorkerPid",
    "__version__",
    "background_worker",
    "connect",
    "hookimpl",
]

_ROOMS = {
    "_control.client": ("Client", "EventStream", "connect"),
    "_control.views": ("Activity", "DatabaseStatus", "HostStatus", "SlotStatus"),
    "_declare": ("background_worker",),
    "_handle": ("BackgroundWorkerHandle", "BgwHandleStatus", "LastExit", "WorkerPid"),
    "_spec": (
        "BGWORKER_BACKEND_DATABASE_CONNECTION",
        "BGWORKER_SHMEM_ACCESS",
        "BGW_DEFAULT_RESTART_INTERVAL",
        "BGW_EXTRALEN",
        "BGW_MAXLEN",
        "BGW_NEVER_RESTART",
        "BackgroundWorker",
        "BgWorkerFlags",
        "BgWorkerStartTime",
        "DATABASE_WORKER_FLAGS",
    ),
    "errors": (
        "ConfigurationError",
        "DeadlockDetected",
        "HostError",
        "HostNotRunning",
        "NoFreeSlot",
        "PermissionDenied",
        "PluginError",
        "ProtocolError",
        "RegistrationError",
        "SharedMemoryError",
        "WaitTimeout",
        "WorkerNotFound",
    ),
    "hookspecs": ("hookimpl",),
}
#: Other faces, reachable as attributes without an import of their own.
_FACES = ("aio", "errors", "spi", "worker")


if not TYPE_CHECKING:  # a type checker would take every misspelled name for an object

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name in _FACES:
            return import_module(f"bgworker.{name}")
        for room, names in _ROOMS.items():
            if name in names:
                value = getattr(import_module(f"bgworker.{room}"), name)
                globals()[name] = value  # the next look finds it without coming here
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_FACES})
