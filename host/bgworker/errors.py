"""The errors of bgworker: one tree, each with primary, detail and hint.

A leaf: every other room may import this one, it imports nothing of ours. The three
parts follow PostgreSQL's message style: the primary is one line, lower case, no period;
detail states facts and hint gives advice, both in full sentences.

    HostError
    ├── ConfigurationError      workers.toml or the command line: its author must act
    ├── PluginError             a plugin failed: its author must act
    ├── RegistrationError       a registration was refused: the caller must act
    │   └── NoFreeSlot          refused only because every slot is taken: try again later
    ├── WorkerNotFound          no worker answers to this name
    ├── PermissionDenied        this peer may not do this
    ├── SharedMemoryError       a segment of shared memory cannot be had
    │   └── DeadlockDetected    two processes wait for each other's locks
    ├── WaitTimeout             a wait's own deadline passed
    ├── HostNotRunning          nobody listens, or the connection to the host is gone
    └── ProtocolError           the peer sent what the protocol does not allow
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
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
    "error_from_dict",
]


class HostError(Exception):
    """Root of every error that bgworker raises on purpose.

    Args:
        message_primary: One line, lower case, no period.
        message_detail: Facts, in full sentences; empty when there are none.
        message_hint: Advice, in full sentences; empty when there is none.
    """

    #: Stable across versions, part of the control protocol.
    code: ClassVar[str] = "internal"
    #: What a command ends with when this error reaches the command line (design section 7).
    exit_code: ClassVar[int] = 1

    def __init__(self, message_primary: str, message_detail: str = "", message_hint: str = "") -> None:
        # All three go to Exception's own args, which makes the error picklable.
        super().__init__(message_primary, message_detail, message_hint)
        self.message_primary = message_primary
        self.message_detail = message_detail
        self.message_hint = message_hint

    def __str__(self) -> str:
        return self.message_primary

    def to_dict(self) -> dict[str, Any]:
        """Return the form in which the error crosses a process boundary."""
        return {
            "code": self.code,
            "message_primary": self.message_primary,
            "message_detail": self.message_detail,
            "message_hint": self.message_hint,
        }

    def lines(self) -> list[str]:
        """Return the error as a terminal shows it: ERROR, DETAIL and HINT lines."""
        lines = [f"ERROR:  {self.message_primary}"]
        if self.message_detail:
            lines.append(f"DETAIL:  {self.message_detail}")
        if self.message_hint:
            lines.append(f"HINT:  {self.message_hint}")
        return lines


class ConfigurationError(HostError):
    """workers.toml, an environment variable or an argument cannot be used."""

    code = "configuration"
    exit_code = 2


class PluginError(HostError):
    """A plugin could not be found, imported or run."""

    code = "plugin"


class RegistrationError(HostError):
    """A background worker was refused at registration."""

    code = "registration"
    exit_code = 2


class NoFreeSlot(RegistrationError):  # noqa: N818 - named in the design
    """Every slot is taken (C14); the same registration can succeed later."""

    code = "no_free_slot"
    exit_code = 5


class WorkerNotFound(HostError):  # noqa: N818 - named in the design
    """No background worker answers to a name, or several do."""

    code = "worker_not_found"


class PermissionDenied(HostError):  # noqa: N818 - named in the design
    """The peer lacks the right that a request needs."""

    code = "permission_denied"


class SharedMemoryError(HostError):
    """A shared memory segment could not be attached, or one of its locks not taken."""

    code = "shared_memory"


class DeadlockDetected(SharedMemoryError):  # noqa: N818 - PostgreSQL's name for the condition
    """Two processes wait for each other's locks; this one did not get its."""

    code = "deadlock_detected"


class WaitTimeout(HostError, TimeoutError):  # noqa: N818 - named in the design
    """A wait ended because its own timeout passed; the worker goes on."""

    code = "wait_timeout"
    exit_code = 4


class HostNotRunning(HostError, ConnectionError):  # noqa: N818 - named in the design
    """No host answers for this data directory, or the one that did has gone."""

    code = "host_not_running"
    exit_code = 3


class ProtocolError(HostError):
    """A message on the control socket or a worker channel is not allowed."""

    code = "protocol"


_BY_CODE: dict[str, type[HostError]] = {
    cls.code: cls
    for cls in (
        HostError,
        ConfigurationError,
        PluginError,
        RegistrationError,
        NoFreeSlot,
        WorkerNotFound,
        PermissionDenied,
        SharedMemoryError,
        DeadlockDetected,
        WaitTimeout,
        HostNotRunning,
        ProtocolError,
    )
}


def error_from_dict(data: dict[str, Any]) -> HostError:
    """Rebuild an error that crossed a process boundary; a code of a newer version becomes HostError."""
    cls = _BY_CODE.get(str(data.get("code")), HostError)
    return cls(
        str(data.get("message_primary", "unspecified error")),
        str(data.get("message_detail", "")),
        str(data.get("message_hint", "")),
    )
