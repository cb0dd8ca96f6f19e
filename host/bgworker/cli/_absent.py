"""What to say of a worker that the host does not know: where workers.toml has it, and why it is not there all the same.

The host keeps no lines of files, so the file is asked, here, and only after the host's answer. The verbs
that name workers use it; nothing here asks the host for anything but its status. Here is also which workers
the name means that instances share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bgworker.cli import _console
from bgworker.cli._invocation import Invocation
from bgworker.errors import HostError, WorkerNotFound
from bgworker.tui.health import instances_of

if TYPE_CHECKING:
    from bgworker._config.model import Configuration
    from bgworker._control.client import Client

Record = dict[str, Any]


def status_of(client: Client) -> Record | None:
    """Return the host's status; None if whoever asks may not view, or the host has gone."""
    try:
        return client.status()
    except HostError:
        return None


def instances(invocation: Invocation, status: Record | None, name: str) -> list[str]:
    """Return the names of a worker's instances that the host knows; the file tells only what the host cannot."""
    if status is None:
        return []
    return instances_of(status, name) or instances_of(status, name, configured_instances(invocation, name))


def configured_instances(invocation: Invocation, name: str) -> list[str]:
    """Return the names of the instances that workers.toml makes of a worker; none if it makes none, or cannot be read."""
    try:
        tables = invocation.configuration().worker
    except (HostError, OSError):
        return []
    return next((table.names for table in tables if table.bgw_name == name and table.enabled and table.names != [name]), [])


def told_why(
    invocation: Invocation, status: Record | None, name: str, error: WorkerNotFound, *, is_group: bool = False
) -> WorkerNotFound:
    """Return the host's error in better words, if workers.toml has the worker; the error as it is, if not.

    Args:
        invocation: Which file.
        status: The host's, if it is known; what the host has answered is true all the same.
        name: What was asked for.
        error: What the host answered.
        is_group: Whether all instances of a worker were meant, and not one.
    """
    if status is None:
        return error
    # One that is there, and has no process to signal; or one that is over, of which the host knows more than the file.
    if any(entry.get("bgw_name") == name for key in ("slots", "finished") for entry in status.get(key) or ()):
        return error
    try:
        configuration = invocation.configuration()
    except (HostError, OSError):
        return error
    number = table_of(configuration, name)
    if number is None:
        return error
    title = f'background worker "{_console.inert(name)}"'
    if not configuration.worker[number].enabled:
        return WorkerNotFound(
            f"{title} is switched off: workers.toml says enabled = false",
            f"It stands in {place(configuration, number, 'enabled')}.",
            "Take enabled = false out of the file, then: bgworker reload",
        )
    if name not in (names := configuration.worker[number].names) and not is_group:
        return WorkerNotFound(
            f"{title} does not exist: it has instances",
            f"It stands in {place(configuration, number)}.",
            f'Name one of them, as in "{_console.inert(names[0])}".',
        )
    return WorkerNotFound(
        f"{title} is not registered",
        f"It stands in {place(configuration, number)}, but the host has not registered it.",
        f'See the reason with: bgworker why "{_console.inert(name)}"',
    )


def table_of(configuration: Configuration, name: str) -> int | None:
    """Return the number of the [[worker]] that a name is of, or that of an instance, counted from 0 over all files."""
    return next((number for number, table in enumerate(configuration.worker) if name in {table.bgw_name, *table.names}), None)


def place(configuration: Configuration, index: int, key: str = "bgw_name") -> str:
    """Return FILE:LINE of a key of a [[worker]], which is counted from 0 over all files; the file alone if it has changed since."""
    from bgworker._config.findings import Findings
    from bgworker._config.include import read_file
    from bgworker._config.model import shortened

    path, number = configuration.places[index] if configuration.places else (configuration.path, index + 1)
    try:
        line = Findings(path, read_file(path)).line(("worker", number - 1, key))
    except HostError:
        line = None
    return shortened(path, 200) + (f":{line}" if line is not None else "")
