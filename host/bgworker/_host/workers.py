"""What is done with a worker's process, from the machine's wish for one to its end.

The process itself is born and watched by ``births``; this room gives it its assignment, hears
what it says, and tells the machine. Functions of the host, which keeps no state for them.
Imported by the composition root and ``effects``.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from bgworker._control.protocol import Message
from bgworker._core.slots import Slot
from bgworker._core.states import Origin, SlotState
from bgworker._host import clients, requests, rights
from bgworker._host.births import Life, WorkerProcess
from bgworker._host.callers import Caller
from bgworker._host.status import code_view
from bgworker._process import injection
from bgworker._spec import BackgroundWorker, printable
from bgworker._version import __version__

if TYPE_CHECKING:
    from bgworker._host.host import Host


def launch(host: Host, life: Life) -> None:
    """Have a process for a life: cloned from the loader, or with an interpreter of its own."""
    worker = host.machine.slots[life.slotno].worker
    assert worker is not None
    is_preloaded = worker.bgw_library_name in host.preloaded or worker.bgw_library_name == "bgworker"
    # What the loader has imported it has imported as the host's user, with the host's environment.
    kind = "preloaded" if is_preloaded and not worker.needs_own_interpreter else "exec"
    try:
        host.births.request(life, kind, worker)
    except OSError as error:
        birth_failed(host, life, f"could not make its pipes: {error.strerror}")


def born(host: Host, process: WorkerProcess) -> None:
    """Take a process whose pid is known: tell the machine, and give it its assignment if it is still wanted."""
    life, pid = process.life, process.pid
    assert pid is not None
    injection.point("host.born")
    assert process.connection is not None
    slot = host.machine.slots[life.slotno]
    known_as(host, process)
    host.apply(host.machine.born(*life, pid, time.monotonic()))
    is_wanted = (slot.generation, slot.attempt) == (life.generation, life.attempt) and slot.state is SlotState.LAUNCHING
    if not is_wanted or slot.worker is None or process.is_abandoned:
        # It has no assignment and blocks its signals; without its channel it leaves.
        process.connection.close()
        process.close_log_fds()
        return
    worker = slot.worker
    host.wake_ups.changed()
    # First what somebody waits for; until the collector is told, what the worker prints waits in its pipes.
    own = {"mark": host.children.strays.mark_for(pid), "notify_socket": host.program_notices.begin(process)}
    process.connection.send(_assignment(host, slot, worker) | own)
    host.output.attach(process, worker, is_static=slot.origin is not Origin.DYNAMIC)


def known_as(host: Host, process: WorkerProcess) -> Caller:
    """Make a process one who may ask; return it as that."""
    assert process.connection is not None
    assert process.pid is not None
    grants = rights.OWNER if host.machine.slots[process.life.slotno].origin is Origin.BUILTIN else rights.WORKER
    is_confined = not host.own_identity.is_user(process.worker.user)
    process.caller = Caller(process.connection, process.pid, process, grants=grants, is_confined=is_confined)
    host.callers.add(process.caller)
    return process.caller


def _assignment(host: Host, slot: Slot, worker: BackgroundWorker) -> Message:
    data = worker.to_wire()
    if slot.origin is Origin.BUILTIN:
        data["bgw_main_arg"] = {"done": sorted(host.ready_done), "load": sorted(host.loaders.exec_only)}
    database = None
    if host.database is not None and worker.is_database_worker:
        database = host.database.for_worker()
    return {
        "type": "assign",
        "slot": slot.slotno,
        "generation": slot.generation,
        "worker": data,
        "settings": host.settings,
        "database": database,
        "python_path": host.python_path,
        "host_pid": os.getpid(),
        "host_version": __version__,
        "max_worker_processes": len(host.machine.slots),
    }


def birth_failed(host: Host, life: Life, reason: str) -> None:
    """Tell the machine that no process came of a launch."""
    host.apply(host.machine.birth_failed(*life, reason, time.monotonic()))


def says(host: Host, process: WorkerProcess, message: Message) -> None:
    """Take one message of a worker: news of itself, or a request like anybody's."""
    kind = message.get("type")
    now = time.monotonic()
    if kind == "started":
        process.code = code_view(message.get("code"))
        host.apply(host.machine.started(*process.life, now))
    elif kind == "start_failed":
        error = message.get("error")
        text = error.get("message_primary") if isinstance(error, dict) else None
        host.apply(host.machine.start_failed(*process.life, printable(str(text or "no reason given"))[:500], now))
    elif kind == "waiting":
        reason = printable(str(message.get("reason") or "waits, and does not say for what"))
        host.apply(host.machine.waits(*process.life, reason, now))
    elif kind == "ready":
        host.apply(host.machine.ready(*process.life, now))
    elif kind in ("moving", "idle"):
        host.apply(host.machine.moved(*process.life, kind == "idle", now))
    elif kind == "exiting":
        process.last_words = str(message.get("error", ""))
    elif kind == "connected":
        if host.wake_ups.connected(process, message.get("database")):
            host.update_channels()
    elif process.caller is not None:
        requests.serve(host, process.caller, message)


def exited(host: Host, process: WorkerProcess, status: int, now: float) -> None:
    """Take the end of a process that has been reaped, and whose last words have been heard."""
    if process.caller is not None:
        clients.forget(host, process.caller)
    host.output.ended(process, status)
    host.wake_ups.changed()
    if process.database:
        host.update_channels()
    if process.was_spare and process.is_unassigned:
        # Killed while it was nobody's: the registration has lost nothing but a moment.
        host.births.spares.postpone_after_failure(now)
        host.apply(host.machine.lost(*process.life, status, now))
    else:
        host.news.ends(process)
        host.apply(host.machine.exited(*process.life, status, now, process.last_words))
