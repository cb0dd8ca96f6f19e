"""What the application needs from outside: a host to look at and to act on, and who can explain it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from bgworker.top.feed import Pictures
from bgworker.tui.health import Status


class Host(Protocol):
    """What the view needs of a client."""

    def start(self, name: object) -> Any:
        """Start a worker."""

    def restart(self, name: object) -> Any:
        """Restart a worker."""

    def terminate(self, name: object, *, by_operator: bool = False) -> Any:
        """Stop a worker for good."""

    def signal(self, name: object, signal: str | int) -> Any:
        """Send a signal."""

    def scale(self, name: str, count: int) -> Any:
        """Have another number of instances."""

    def close(self) -> None:
        """End the connection."""


class Child(Protocol):
    """A host that is the child of the view's own process: one does not go on without the other."""

    def stop(self) -> None:
        """Ask for a fast stop; a second time for an immediate one."""

    def wait(self) -> int:
        """Wait for the end and return the exit code."""


class Doors(NamedTuple):
    """What the application needs from outside."""

    pictures: Pictures
    #: Opens a connection to act through; raises HostError.
    connect: Callable[[], Host]
    #: Absolute path, where the logs are.
    data_directory: str
    #: Lines that say why a worker (``slot.generation``) is as it is, of a status; raises HostError.
    explain: Callable[[str, Status], Sequence[str]]
    #: The host, if leaving the view is to stop it.
    child: Child | None = None
