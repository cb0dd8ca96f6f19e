"""What the machine has decided, done: each effect becomes a call on the room that it is about.

Imported by the composition root alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from bgworker._core import effects as fx
from bgworker._core.scope import Segment
from bgworker._core.slots import Slot
from bgworker._core.states import Origin, ShutdownMode, SlotState
from bgworker._host import clients, workers
from bgworker._host.births import Life
from bgworker._host.waits import slot_record
from bgworker._spec import printable

if TYPE_CHECKING:
    from bgworker._host.host import Host

#: Of a host that ended because an essential worker did (design section 7).
_ESSENTIAL_EXIT_CODE: Final = 7


def apply(host: Host, effects: Sequence[fx.Effect]) -> None:
    """Do what the machine decided, in its order."""
    for effect in effects:
        match effect:
            case fx.Launch(slotno, generation, attempt):
                workers.launch(host, Life(slotno, generation, attempt))
            case fx.Signal(_slotno, _generation, pid, signum, whole_session):
                host.signal(pid, signum, whole_session=whole_session)
            case fx.Abandon(slotno, generation, attempt):
                host.births.abandon(Life(slotno, generation, attempt))
            case fx.Publish(slotno):
                _publish(host, host.machine.slots[slotno])
            case fx.Started():
                host.memory.started(host.machine.slots[effect.slotno], time.monotonic())
                host.news.started(effect)
            case fx.Exited():
                host.crash_count += effect.exit.is_crash
                host.news.exited(effect)
            case fx.Forgotten():
                _forget(host, effect)
            case fx.Reinitialise(others, segments):
                _reinitialise(host, others, segments)
            case fx.Log(level, message, detail, hint):
                host.log(level, message, detail, hint)


def _publish(host: Host, slot: Slot) -> None:
    host.status.changed(slot.slotno)
    host.service.changed()
    host.slot_table.write(slot.slotno, slot_record(slot))
    if slot.state is not SlotState.FREE:  # else Forgotten follows, and with it the reason
        host.waits.slot_changed(slot, host.finished.reason)


def _reinitialise(host: Host, others: int, segments: Iterable[Segment]) -> None:
    """Give up memory that a crash has made worthless; end the host if it is not to go on after that (C31)."""
    host.segments.drop(segments)
    if others and not host.restart_after_crash and host.machine.shutdown is None:
        host.shutdown.fatal_exit_code = 1
        host.begin_shutdown(ShutdownMode.FAST, "shutting down because restart_after_crash is off")


def _forget(host: Host, effect: fx.Forgotten) -> None:
    key = (effect.slotno, effect.generation)
    if effect.origin is not Origin.BUILTIN:
        host.finished.add(effect.slotno, effect.generation, effect.worker, effect.origin, effect.last_exit, effect.reason)
    host.waits.slot_changed(host.machine.slots[effect.slotno], host.finished.reason)
    host.news.finished(effect)
    host.callers.forget(key)
    host.registrars.pop(key, None)
    clients.count_live_handles(host)
    if effect.worker.wake_on:
        host.update_channels()
    if effect.worker.essential and effect.has_failed and host.machine.shutdown is None:
        host.shutdown.fatal_exit_code = _ESSENTIAL_EXIT_CODE
        name = printable(effect.worker.bgw_name)
        host.begin_shutdown(
            ShutdownMode.FAST, f'shutting down because essential background worker "{name}" failed: {effect.reason}'
        )
