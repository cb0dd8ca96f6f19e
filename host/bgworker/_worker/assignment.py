"""What the host tells a blank worker it is to be, and the Runtime made of it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bgworker._control.protocol import Message
from bgworker._spec import BackgroundWorker, worker_from_dict
from bgworker._worker.activity import Activity
from bgworker._worker.channel import Channel
from bgworker._worker.interrupts import Interrupts
from bgworker._worker.latch import Latch
from bgworker._worker.runtime import DatabaseFacts, Runtime
from bgworker._worker.settings import Settings

if TYPE_CHECKING:
    from bgworker._plugins.manager import PluginHost


@dataclass(frozen=True)
class Assignment:
    """The ``assign`` message, read."""

    worker: BackgroundWorker
    slotno: int = 0
    generation: int = 0
    #: Raw ``[settings]`` tables.
    settings: dict[str, Any] = field(default_factory=dict)
    database: DatabaseFacts | None = None
    python_path: tuple[str, ...] = ()
    #: What this process marks itself with, so that what it leaves behind is found.
    mark: int | None = None
    #: Where a program says that it is ready; empty if there is no such place.
    notify_socket: str = ""


def read_assignment(message: Message) -> Assignment:
    """Return what an ``assign`` message says; the host is trusted to have checked it.

    Raises:
        KeyError: It is none of this version's.
    """
    database = message.get("database")
    return Assignment(
        worker_from_dict(message["worker"]),
        message["slot"],
        message["generation"],
        message.get("settings") or {},
        _read_database(database) if database else None,
        tuple(message.get("python_path") or ()),
        message.get("mark"),
        str(message.get("notify_socket") or ""),
    )


def _read_database(database: Message) -> DatabaseFacts:
    return DatabaseFacts(
        str(database.get("kind", "")),
        database["conninfo"],
        database.get("role"),
        is_pooled=bool(database.get("is_pooled")),
        direct_conninfo=str(database.get("direct_conninfo") or ""),
    )


def make_runtime(
    assignment: Assignment,
    latch: Latch,
    interrupts: Interrupts,
    channel: Channel,
    *,
    lifeline_fd: int = -1,
    activity_fd: int = -1,
    plugins: PluginHost | None = None,
) -> Runtime:
    """Return the runtime of a worker that knows what it is."""
    worker = assignment.worker
    interrupts.name = worker.bgw_name
    return Runtime(
        worker=worker,
        slotno=assignment.slotno,
        generation=assignment.generation,
        latch=latch,
        interrupts=interrupts,
        channel=channel,
        activity=Activity(activity_fd, assignment.slotno, assignment.generation),
        settings=Settings(assignment.settings, worker.bgw_library_name, plugins),
        lifeline_fd=lifeline_fd,
        database=assignment.database,
        plugins=plugins,
    )


def take_name(name: str) -> None:
    """Show the worker's name as the process's title, and as its arguments."""
    import setproctitle

    setproctitle.setproctitle(f"bgworker: {name}")
    # A worker's argparse must not read the loader's options.
    sys.argv = [f"bgworker: {name}"]


def extend_path(python_path: tuple[str, ...]) -> None:
    """Let the worker import from ``[host] python_path``.

    In front, as the folder of a script that is run: a plain module beside workers.toml wins
    over an installed one of its name.
    """
    for path in reversed(python_path):
        absolute = os.path.abspath(path)
        if absolute not in sys.path:
            sys.path.insert(0, absolute)
