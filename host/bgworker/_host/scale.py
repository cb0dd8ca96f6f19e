"""``scale``: another number of instances of a static worker, of which only the difference is touched.

What an operator did stays done: a reload keeps the number, unless the one in the file has changed. It ends
with the host. Imported by ``requests`` and ``reload``.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from bgworker._core import reasons
from bgworker._core.slots import no_free_slot
from bgworker._core.states import Origin, SlotState
from bgworker._host import reload as reloading
from bgworker._host.callers import Caller
from bgworker._spec import BackgroundWorker, printable, sanity_check
from bgworker._supervision import MOST_INSTANCES
from bgworker.errors import NoFreeSlot, RegistrationError, WorkerNotFound

if TYPE_CHECKING:
    from bgworker._host.host import Host


class Scaled(NamedTuple):
    """What an operator made of a number."""

    #: As the file had it.
    configured: int
    chosen: int


def scale(host: Host, caller: Caller, name: str, count: int) -> tuple[list[str], list[str]]:
    """Start or stop instances until there are so many; return the names of those started, and of those stopped.

    Raises:
        WorkerNotFound: There are no instances of this name.
        NoFreeSlot: There are not enough slots; nothing was done.
        RegistrationError: The number, a name or the moment does not allow it; nothing was done.
    """
    present = {s.worker.instance: s.worker for s in host.static.values() if s.worker.instance and s.worker.instance_of == name}
    if not present:
        raise WorkerNotFound(
            f'there are no instances of "{printable(name)}"',
            message_hint="Set instances in its [[worker]], then reload.",
        )
    if not 1 <= count <= MOST_INSTANCES:
        raise RegistrationError(
            f'could not scale "{printable(name)}" to {count}: allowed are 1 to {MOST_INSTANCES}',
            message_hint="To stop all of them, terminate each, or set enabled = false and reload." if count == 0 else "",
        )
    template = present[min(present)]
    started = [_numbered(template, number) for number in range(1, count + 1) if number not in present]
    _check(host, name, count, started)
    stopped = [present[number].bgw_name for number in sorted(present, reverse=True) if number > count]
    for gone in stopped:
        _stop(host, caller, gone)
    for worker in started:
        slot = host.register(worker, Origin.STATIC, None)
        host.static[worker.bgw_name] = reloading.Static(worker, slot.slotno, slot.generation)
        host.finished.discard(worker.bgw_name)
    before = host.scaled.get(name)
    host.scaled[name] = Scaled(len(present) if before is None else before.configured, count)
    if started or stopped:
        host.log("LOG", f'background worker "{printable(name)}" was scaled from {len(present)} to {count}')
    return [worker.bgw_name for worker in started], stopped


def _check(host: Host, name: str, count: int, started: list[BackgroundWorker]) -> None:
    if host.machine.shutdown is not None:
        raise RegistrationError(f'could not scale "{printable(name)}": the host is shutting down')
    if taken := [worker.bgw_name for worker in started if worker.bgw_name in host.static]:
        raise RegistrationError(
            f'could not scale "{printable(name)}" to {count}: "{printable(taken[0])}" is the name of another worker'
        )
    free = sum(slot.state is SlotState.FREE for slot in host.machine.slots)
    if len(started) > free:
        error = no_free_slot(host.machine.slots)
        raise NoFreeSlot(
            f'could not scale "{printable(name)}" to {count}: {len(started)} slots are needed, and {free} are free',
            error.message_detail,
            error.message_hint,
        )


def _stop(host: Host, caller: Caller, name: str) -> None:
    static = host.static.pop(name)
    # Of one that was over already; the others are listed when they are gone.
    host.finished.reword(name, reasons.scaled_away(static.worker))
    if static.slotno is not None and host.machine.slots[static.slotno].generation == static.generation:
        key = (static.slotno, static.generation)
        host.askers.note(key, caller)
        host.apply(host.machine.scale_away(*key, time.monotonic()))


def _numbered(template: BackgroundWorker, number: int) -> BackgroundWorker:
    worker = replace(template, bgw_name=f"{template.instance_of}-{number}", instance=number)
    return sanity_check(worker, is_dynamic=False)


def keep(scaled: dict[str, Scaled], wanted: dict[str, BackgroundWorker]) -> dict[str, Scaled]:
    """Give a new configuration the numbers that an operator chose, where the file's own are as they were; return those.

    Args:
        scaled: What was chosen.
        wanted: The workers of the new configuration, by name; changed.
    """
    kept = {}
    for name, (configured, count) in scaled.items():
        present = {worker.instance: worker for worker in wanted.values() if worker.instance and worker.instance_of == name}
        if len(present) != configured or not present:
            continue
        kept[name] = Scaled(configured, count)
        for number in [number for number in present if number > count]:
            del wanted[present[number].bgw_name]
        for number in range(configured + 1, count + 1):
            worker = _numbered(present[1], number)
            wanted.setdefault(worker.bgw_name, worker)
    return kept
