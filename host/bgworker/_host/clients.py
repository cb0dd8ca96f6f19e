"""Who may connect, and what the host knows of those who have: clients on the control socket, and callers in general.

What they ask is served by ``requests``. Functions of the host, which keeps the callers. Imported by
the composition root and the rooms beside it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bgworker._control.protocol import Message
from bgworker._control.server import Peer
from bgworker._core.states import ShutdownMode, SlotState
from bgworker._host import requests, rights
from bgworker._host.callers import Caller
from bgworker._version import __version__

if TYPE_CHECKING:
    from bgworker._host.host import Host


def admits(host: Host, uid: int, gid: int, others: frozenset[int] | None) -> bool:
    """Whether a peer that is neither the host's user nor root may connect."""
    return host.access is not None and host.access.admits(uid, gid, others)


def _grants_of(host: Host, peer: Peer) -> rights.Grants:
    return rights.OWNER if peer.is_owner or host.access is None else host.access.grants


def greeting(host: Host, peer: Peer) -> tuple[Message, Sequence[int]]:
    """Return the first line that a client gets, with the descriptors of both tables."""
    activity = host.activity_table if rights.Right.VIEW in _grants_of(host, peer).rights else host.blank_table
    message = {"bgworker": 1, "version": __version__, "pid": os.getpid(), "max_worker_processes": len(host.machine.slots)}
    return message, (host.slot_table.read_only_fd, activity.read_only_fd)


def came(host: Host, peer: Peer) -> Caller:
    """Take a new client in; return it as one who asks."""
    caller = Caller(peer.connection, peer.pid, grants=_grants_of(host, peer), uid=peer.uid, open_pidfd=peer.open_pidfd)
    host.callers.add(caller)

    def closed() -> None:
        forget(host, caller)
        count_live_handles(host)

    peer.on_request = lambda message: requests.serve(host, caller, message)
    peer.on_close = closed
    return caller


def forget(host: Host, caller: Caller) -> None:
    """Forget a caller whose connection has ended, and what it waits for."""
    host.callers.discard(caller)
    host.waits.discard_owner(caller)
    if host.database is not None:
        host.database.openings.over(caller)


def count_live_handles(host: Host, mode: ShutdownMode | None = None) -> None:
    """Tell the machine how many connections hold a handle of a worker that is still registered (design 8.4)."""
    if ShutdownMode.SMART not in (mode, host.machine.shutdown):
        return
    slots = host.machine.slots
    count = sum(
        any(slots[n].generation == g and slots[n].state is not SlotState.FREE for n, g in caller.handles)
        for caller in host.callers.clients()
    )
    host.apply(host.machine.set_live_handles(count, time.monotonic()))
