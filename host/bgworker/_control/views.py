"""What a host shows of itself, as typed values: design section 7's object for Python code.

Imported only when ``slots()`` or ``host()`` is called: dataclasses cost more than the whole
round trip. Every class takes the keys it knows and ignores the rest, so that a client reads
the status of a newer host.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Final, TypeVar

from bgworker._handle import LastExit, last_exit_from

__all__ = ["Activity", "DatabaseStatus", "HostStatus", "SlotStatus"]


@dataclass(frozen=True)
class Activity:
    """What a worker last said about itself (C28); empty when it said nothing."""

    state: str = ""
    text: str = ""
    wait_event: str = ""


@dataclass(frozen=True)
class SlotStatus:
    """One slot in use."""

    slot: int
    generation: int
    bgw_name: str
    bgw_type: str
    bgw_library_name: str = ""
    bgw_function_name: str = ""
    #: Names of the flags.
    bgw_flags: tuple[str, ...] = ()
    bgw_start_time: str = ""
    #: Seconds; None for BGW_NEVER_RESTART.
    bgw_restart_time: float | None = None
    #: not_yet_started, started, waiting_restart or terminating.
    state: str = ""
    pid: int | None = None
    #: static, dynamic or builtin.
    origin: str = ""
    #: Lives after the first one.
    restarts: int = 0
    #: RFC 3339, as are all instants here.
    started_at: str | None = None
    restart_at: str | None = None
    last_exit: LastExit | None = None
    activity: Activity = field(default_factory=Activity)
    #: Why the worker is not running and what happens next; empty for a healthy one.
    reason: str = ""
    #: Names of the shared memory segments that its process is attached to.
    segments: tuple[str, ...] = ()
    #: Our own keys as they took effect.
    config: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def handle(self) -> str:
        """Text of the worker's handle, for ``client.handle()``."""
        return f"{self.slot}.{self.generation}"


@dataclass(frozen=True)
class DatabaseStatus:
    """The database next to the host."""

    #: embedded or external.
    kind: str = ""
    #: starting, consistent, recovery_finished or unreachable.
    phase: str = ""
    detail: str = ""
    #: Without a password.
    url: str = ""


@dataclass(frozen=True)
class HostStatus:
    """The host itself."""

    pid: int
    #: starting, consistent, run or stopping.
    state: str = ""
    started_at: str = ""
    data_directory: str = ""
    max_worker_processes: int = 0
    crash_count: int = 0
    version: str = ""
    #: None without a [database] table.
    database: DatabaseStatus | None = None


_View = TypeVar("_View", SlotStatus, HostStatus, DatabaseStatus, Activity)


def slots_from(status: dict[str, Any]) -> list[SlotStatus]:
    """Return the slots of a status object, in its order."""
    return [_slot_from(slot) for slot in status["slots"]]


def host_from(status: dict[str, Any]) -> HostStatus:
    """Return the host of a status object."""
    host = dict(status["host"])
    host["database"] = _known(DatabaseStatus, host["database"]) if host.get("database") else None
    return _known(HostStatus, host)


def _slot_from(slot: dict[str, Any]) -> SlotStatus:
    values = dict(slot)
    values["bgw_flags"] = tuple(slot.get("bgw_flags", ()))
    values["segments"] = tuple((slot.get("config") or {}).get("segments", ()))
    values["last_exit"] = last_exit_from(slot.get("last_exit"))
    values["activity"] = _known(Activity, slot.get("activity") or {})
    return _known(SlotStatus, values)


#: Asked of dataclasses once: status of 200 slots makes 400 objects.
_NAMES: Final = {cls: frozenset(f.name for f in fields(cls)) for cls in (SlotStatus, HostStatus, DatabaseStatus, Activity)}


def _known(cls: type[_View], values: dict[str, Any]) -> _View:
    names = _NAMES[cls]
    if values.keys() != names:
        return cls(**{name: value for name, value in values.items() if name in names})
    # The host of this very version: a frozen class takes its fields one by one, its dictionary takes them together.
    view = object.__new__(cls)
    vars(view).update(values)
    return view
