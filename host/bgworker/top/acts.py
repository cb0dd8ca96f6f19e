"""What the keys that act ask of the chosen worker's host, and what they ask the user first.

Whatever stops something is asked about; what the host refuses is its to say. Used by the application.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bgworker.errors import HostError
from bgworker.top import dialogs
from bgworker.top.actions import Act
from bgworker.top.order import Entry
from bgworker.tui.health import Status, slots_of

if TYPE_CHECKING:
    from bgworker.top.app import Top


def start(app: Top) -> None:
    """Start the chosen worker."""
    if (entry := app.chosen()) is not None:
        # One that is over is known by its name alone.
        is_over = entry.row.state in ("finished", "failed")
        name = app.raw_name(entry) if is_over else entry.row.slot
        app.act(lambda host: host.start(name), f"starting {entry.row.name}")


def restart(app: Top) -> None:
    """Restart the chosen worker."""
    if (entry := app.chosen()) is not None:
        consequence = "It is stopped, and started again at once."
        _ask(app, entry, "Restart", consequence, lambda host: host.restart(entry.row.slot), "restarting")


def terminate(app: Top) -> None:
    """Terminate the chosen worker."""
    if (entry := app.chosen()) is not None:
        consequence = "It gets SIGTERM, and SIGKILL after its stop_timeout; then it stays down until it is started."
        _ask(app, entry, "Terminate", consequence, lambda host: host.terminate(entry.row.slot, by_operator=True), "terminating")


def signal(app: Top) -> None:
    """Send a signal to the chosen worker."""
    entry = app.chosen()
    if entry is None:
        return

    def send(name: str | None) -> None:
        if name is None:
            return
        act: Act = lambda host: host.signal(entry.row.slot, name)  # noqa: E731 - an annotated function would be no shorter
        if name in dialogs.STOPPING:
            consequence = "It ends or halts, and its restart time decides what then."
            _ask(app, entry, f"Send {name} to", consequence, act, f"sent {name} to")
        else:
            app.act(act, f"sent {name} to {entry.row.name}")

    app.push_screen(dialogs.SignalChoice(entry.row.name), send)


def scale(app: Top) -> None:
    """Have another number of instances of the worker that the chosen one is an instance of."""
    entry = app.chosen()
    if entry is None or app.picture is None:
        return
    group, count = instances_of(app.picture.status, app.raw_name(entry))
    if not group:
        app.push_screen(
            dialogs.complaint(
                HostError(
                    f'"{entry.row.name}" is no instance of a worker',
                    "Only workers of workers.toml that have the key instances can be scaled.",
                    "Set instances in its [[worker]], then: bgworker reload",
                )
            )
        )
        return

    def wanted(number: int | None) -> None:
        if number is not None and number != count:
            app.act(lambda host: host.scale(group, number), f"scaling {group} from {count} to {number}")

    app.push_screen(dialogs.NumberOfInstances(group, count), wanted)


def instances_of(status: Status, name: str) -> tuple[str, int]:
    """Return the worker that a name is an instance of, and how many of them are registered; ("", 0) if it is none.

    An instance that is over has no slot that says so: its name tells, if others are left.
    """
    counts: dict[str, int] = {}
    for slot in slots_of(status):
        if number := (slot.get("config") or {}).get("instance"):
            group = str(slot.get("bgw_name")).removesuffix(f"-{number}")
            counts[group] = counts.get(group, 0) + 1
    base, _, number = name.rpartition("-")
    return (base, counts[base]) if base in counts and number.isdecimal() else ("", 0)


def _ask(app: Top, entry: Entry, verb: str, consequence: str, act: Act, doing: str) -> None:
    def answered(is_yes: bool | None) -> None:
        if is_yes:
            app.act(act, f"{doing} {entry.row.name}")

    app.push_screen(dialogs.Question(f"{verb} {entry.row.name} ({entry.row.slot})?", consequence), answered)
