"""What a host takes along when it executes itself anew: one document, gathered from the rooms and given back to them.

JSON with a format number. Each room writes and reads its own part; here stands their order, and who
is meant where one part speaks of what another one holds: a process by the number of its birth, a
caller as ``w`` and that number, or as ``c`` and the descriptor of its connection. Whatever changes
in what any room carries changes the format: raise ``FORMAT``; so does another default of a key of registrations, of which only
what differs from it is written. ``tests/contract/test_carried.py``
holds which attributes are carried, and which are made anew.

Used by ``reexec`` and ``resume`` alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from bgworker._baggage import Baggage
from bgworker._config.model import DatabaseSettings, HostSettings
from bgworker._core.codec import UnreadableError, expect, read, write
from bgworker._host import clients, requests, workers
from bgworker._host.births import WorkerProcess
from bgworker._host.callers import Caller
from bgworker._host.reload import Static
from bgworker._host.scale import Scaled

if TYPE_CHECKING:
    from bgworker._host.host import Host

#: Of the document that this version writes, and the only one that it reads.
FORMAT: Final = 1
Document = dict[str, Any]

#: What it consists of.
_PARTS: Final = frozenset({
    "format", "about", "locks", "lifeline", "tables", "socket_name", "notices", "host", "registrars", "machine", "segments",
    "finished", "births", "processes", "running", "output", "peers", "callers", "overhearing", "waits", "news", "strays", "memory",
    "loaders", "database", "descriptors", "reexec",
})  # fmt: skip
#: What of the host itself is written as it is, with its type.
_PLAIN: Final[dict[str, Any]] = {
    "started_at": float,
    "crash_count": int,
    "ready_done": set[str],
    "settings": dict[str, Any],
    "static": dict[str, Static],
    "scaled": dict[str, Scaled],
    "broken_plugins": list[dict[str, Any]],
    "rejected": list[dict[str, Any]],
    "preloaded": frozenset[str],
    "python_path": list[str],
    "plugins": list[str],
    "reloaded": dict[str, Any],
    "fixed": dict[str, str],
    "is_loaded": bool,
}


def carry(host: Host, baggage: Baggage) -> Document:
    """Return everything that the same host must still know; packs the descriptors that are meant in it."""
    processes = {process.birth: process for process in (*host.births.by_pid.values(), *host.output.processes())}
    known = host.callers.all()
    document: Document = {
        "format": FORMAT,
        "about": {
            "data_directory": host.data_directory,
            "config_path": host.config_path,
            "log_to": host.log_to,
            "configuration": msgspec.to_builtins(host.configuration.host),
            "database": None if host.database is None else msgspec.to_builtins(host.configuration.database),
            "access": None if host.access is None else [host.access.gid, sorted(host.access.members)],
            "identity": write(host.own_identity),
        },
        "locks": host.locks.carry(baggage),
        "lifeline": host.lifeline.carry(baggage),
        "tables": [table.carry(baggage) for table in (host.slot_table, host.activity_table, host.blank_table)],
        "socket_name": host.socket_name.carry(baggage),
        "notices": host.program_notices.carry(baggage),
        "host": {name: write(getattr(host, name)) for name in _PLAIN},
        "registrars": [[key, registrar] for key, registrar in host.registrars.items()],
        "machine": host.machine.carry(),
        "segments": host.segments.carry(baggage),
        "finished": host.finished.carry(),
        "births": host.births.carry(),
        "processes": [process.carry(baggage) for process in processes.values()],
        "running": [process.birth for process in host.births.by_pid.values()],
        "output": host.output.carry(baggage),
        "peers": [],
        "callers": {name_of(caller): caller.carry() for caller in known},
        "overhearing": [name_of(caller) for caller in known if caller in host.callers.overhearing],
        "waits": [[name_of(wait.owner), wait.carry()] for wait in host.waits.all()],
        "news": host.news.carry(baggage),
        "strays": host.children.strays.carry(),
        "memory": host.memory.carry(),
        "loaders": host.loaders.carry(),
        "database": None,
    }
    for peer in host.server.peers:
        document["peers"].append(peer.carry(baggage))
    if host.database is not None:
        openings = [[name_of(caller), asked] for caller, asked in host.database.openings.carry()]
        document["database"] = {"said": host.database.carry(), "openings": openings}
    return document


def name_of(caller: object) -> str:
    """Return how the document names a caller."""
    assert isinstance(caller, Caller)
    return f"c{caller.connection.fileno()}" if caller.worker is None else f"w{caller.worker.birth}"


def check(document: Any) -> Document:
    """Return what was read as a document, if this version knows its format.

    Raises:
        UnreadableError: It does not.
    """
    if not isinstance(document, dict) or not isinstance(document.get("format"), int):
        raise UnreadableError("the state that was carried is not a document")
    if document["format"] != FORMAT:
        raise UnreadableError(f"the state is in format {document['format']}, and this version reads format {FORMAT} alone")
    expect(document, _PARTS, "the state")
    expect(document["host"], _PLAIN, "what is known of the host")
    return document


def configuration_of(document: Document) -> tuple[HostSettings, DatabaseSettings | None]:
    """Return the configuration that the host was started with.

    Raises:
        UnreadableError: This version does not know a key of it.
    """
    about = document["about"]
    try:
        settings = msgspec.convert(about["configuration"], HostSettings)
        database = None if about["database"] is None else msgspec.convert(about["database"], DatabaseSettings)
    except msgspec.ValidationError as error:
        raise UnreadableError(f"the configuration cannot be read: {error}") from None
    return settings, database


def resume(host: Host, document: Document, baggage: Baggage) -> dict[str, Caller]:
    """Give every room its part; return the callers by their names. The host is fresh, and has not turned its loop yet.

    Nothing is sent, written or signalled: a rehearsal holds the very same descriptors as the host that goes on.

    Raises:
        UnreadableError, KeyError, TypeError, ValueError: It is not what this version carries.
        OSError: A descriptor is not what it should be.
    """
    for name, kind in _PLAIN.items():
        setattr(host, name, read(kind, document["host"][name]))
    host.registrars = dict(read(list[tuple[tuple[int, int], tuple[int, int]]], document["registrars"]))
    now = time.monotonic()
    host.machine.resume(document["machine"], now)
    host.segments.resume(document["segments"], baggage)
    host.finished.resume(document["finished"])
    host.births.resume(document["births"])
    processes = _resume_processes(host, document, baggage)
    host.output.resume(document["output"], {str(birth): process for birth, process in processes.items()})
    callers = _resume_callers(host, document, processes, baggage)
    for owner, wait in document["waits"]:
        host.waits.add(requests.wait_of(callers[owner], **wait))
    host.news.resume(document["news"], baggage)
    host.children.strays.resume(document["strays"])
    host.memory.resume(document["memory"])
    host.loaders.resume(document["loaders"])
    if host.database is not None:
        host.database.resume(document["database"]["said"])
        for name, asked in document["database"]["openings"]:
            host.database.openings.resume(callers[name], asked)
    return callers


def _resume_processes(host: Host, document: Mapping[str, Any], baggage: Baggage) -> dict[int, WorkerProcess]:
    processes = {}
    for carried in document["processes"]:
        process = host.births.resume_process(carried, baggage)
        processes[process.birth] = process
    for birth in document["running"]:
        process = processes[birth]
        assert process.pid is not None
        host.births.by_pid[process.pid] = process
    return processes


def _resume_callers(
    host: Host, document: Mapping[str, Any], processes: Mapping[int, WorkerProcess], baggage: Baggage
) -> dict[str, Caller]:
    callers: dict[str, Caller] = {}
    for carried in document["peers"]:
        caller = clients.came(host, host.server.resume_peer(carried, baggage))
        callers[name_of(caller)] = caller
    for birth in document["running"]:
        if (name := f"w{birth}") in document["callers"]:
            callers[name] = workers.known_as(host, processes[birth])
    for name, carried in document["callers"].items():
        callers[name].resume(carried)
    for name in document["overhearing"]:
        host.callers.overhear(callers[name], True)
    return callers
