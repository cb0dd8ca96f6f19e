"""Static workers put into effect: at the start all of them, at a reload the difference.

What runs and did not change is never touched. What an operator terminated, or what
finished by itself, stays as it is: a reload compares the configuration with the
configuration before, not with what runs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bgworker._core.states import Origin, SlotState
from bgworker._host import rights
from bgworker._spec import BackgroundWorker, printable, sanity_check, worker_from_dict
from bgworker.errors import NoFreeSlot, RegistrationError

if TYPE_CHECKING:
    from bgworker._host.host import Host

Change = dict[str, str]


@dataclass
class Static:
    """One static worker as configured, and the registration that holds it, if one does."""

    worker: BackgroundWorker
    slotno: int | None
    generation: int


def take_static_workers(host: Host, described: list[dict[str, Any]]) -> list[Change]:
    """Register, replace and remove static workers so that they are as described; return what was done."""
    wanted: dict[str, BackgroundWorker] = {}
    for each in described:
        try:
            worker = worker_from_dict(each["worker"])
            rights.check_identity(host.own_identity, worker)
            wanted[worker.bgw_name] = sanity_check(worker, is_dynamic=False, has_database=host.has_database)
        except RegistrationError as error:
            reject(host, str(each["worker"].get("bgw_name")), error)
    changes: list[Change] = []
    # Removal first: it frees slots for what is new, at the latest when the workers have ended.
    for name in [name for name in host.static if name not in wanted]:
        static = host.static.pop(name)
        host.finished.discard(name)
        if _is_registered(host, static):
            assert static.slotno is not None
            host.askers.note_reload((static.slotno, static.generation))
            host.apply(host.machine.terminate(static.slotno, static.generation, time.monotonic()))
            changes.append(_change(name, "stop", "it is no longer configured"))
    for name, worker in wanted.items():
        known = host.static.get(name)
        if known is None:
            changes += _register(host, worker)
        elif known.worker != worker:
            changes += _replace(host, known, worker)
    return changes


def _register(host: Host, worker: BackgroundWorker) -> list[Change]:
    name = worker.bgw_name
    try:
        slot = host.register(worker, Origin.STATIC, None)
    except NoFreeSlot as error:
        # C14: said loudly, and the rest run.
        host.log(
            "LOG",
            error.message_primary,
            f'Background worker "{printable(name)}" was skipped. {error.message_detail}',
            error.message_hint,
        )
        reject(host, name, error, is_logged=True)
        return [_change(name, "rejected", error.message_primary)]
    except RegistrationError as error:
        reject(host, name, error)
        return [_change(name, "rejected", error.message_primary)]
    host.static[name] = Static(worker, slot.slotno, slot.generation)
    return [_change(name, "start", "it is new")]


def _replace(host: Host, known: Static, worker: BackgroundWorker) -> list[Change]:
    known.worker = worker
    if not _is_registered(host, known):
        return [_change(worker.bgw_name, "nothing", "it changed, but it is stopped; start it with: bgworker start")]
    assert known.slotno is not None
    host.apply(host.machine.replace(known.slotno, known.generation, worker, time.monotonic()))
    return [_change(worker.bgw_name, "restart", "its registration changed")]


def _is_registered(host: Host, static: Static) -> bool:
    if static.slotno is None:
        return False
    slot = host.machine.slots[static.slotno]
    return slot.generation == static.generation and slot.state is not SlotState.FREE


def _change(name: str, action: str, reason: str) -> Change:
    return {"bgw_name": name, "action": action, "reason": reason}


def reject(host: Host, name: str, error: RegistrationError, *, is_logged: bool = False) -> None:
    """List a static worker that could not be registered, and say so in the log."""
    more = " ".join(filter(None, (error.message_detail, error.message_hint)))
    text = f"{error.message_primary}: {more}" if more else error.message_primary
    host.rejected = [*host.rejected, {"bgw_name": name, "error": text}]
    if not is_logged:
        host.log("ERROR", error.message_primary, error.message_detail, error.message_hint)


def changed_settings(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the plugins whose [settings] table is not what it was."""
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))


def without_effect(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return a warning for each key that changed in the file and that only a start of the host takes up."""
    return [
        f"{key} changed in the file; it takes effect when the host is started again"
        for key in before
        if before[key] != after.get(key)
    ]


def summary(changes: list[Change]) -> str:
    """Return the changes in one phrase for the log."""
    if not changes:
        return "no worker changed"
    return ", ".join(f'{change["action"]} "{printable(change["bgw_name"])}"' for change in changes)
