"""Crashes (C31): who shares memory with whom, and the reinitialisation of all whom a crash takes along.

Whom a crash concerns ``scope`` says; what follows for each of them ``restart`` does. Made by
``slots``; ``ends`` tells it of crashes.
"""

from __future__ import annotations

from typing import Any

from bgworker._core import codec, reasons
from bgworker._core.actions import QUIT_TIMEOUT, Facts
from bgworker._core.effects import Effect, Log, Publish, Reinitialise
from bgworker._core.exits import Exit, outcome
from bgworker._core.record import Slot
from bgworker._core.roster import Roster
from bgworker._core.scope import CrashScope, Segment, in_scope
from bgworker._core.states import Intent, SlotState
from bgworker._core.table import Event
from bgworker.errors import SharedMemoryError

__all__ = ["Crashes"]


class Crashes:
    """Ties workers to each other by the memory that they share, and ends with one that crashed those tied to it.

    Args:
        roster: The slots.
        scope: How far a crash reaches.
    """

    def __init__(self, roster: Roster, scope: CrashScope) -> None:
        self._roster = roster
        self._scope = scope
        #: So many reinitialisations there were; their numbers stand in the slots.
        self._count = 0

    def carry(self) -> int:
        """Return how many reinitialisations there were."""
        return self._count

    def resume(self, carried: Any) -> None:
        """Go on counting where ``carry`` has said.

        Raises:
            UnreadableError: It has not.
        """
        self._count = codec.read(int, carried)

    def attach(self, slot: Slot | None, segment: Segment, now: float) -> list[Effect]:
        """Note that a process is about to get a shared memory segment, which ties it to everybody who has it.

        Raises:
            SharedMemoryError: The process has not started, so that its end would be no crash, or is on its way out.
        """
        if slot is None or slot.state is not SlotState.STARTED:
            raise SharedMemoryError(
                f'could not attach to shared memory segment "{segment.name}": the worker is not running',
                "Memory is shared only by workers whose function has been called and that have not been told to stop.",
                "Attach in the worker's function, not when its module is imported.",
            )
        if segment in slot.segments:
            return []
        slot.segments |= {segment}
        self._roster.changed(slot, now)
        return [Publish(slot.slotno)]

    def reinitialise(self, crashed: Slot, end: Exit, now: float) -> list[Effect]:
        """Take everybody down whom the crash concerns; called while the crashed slot still has its segments."""
        others, segments = in_scope(self._roster.slots, crashed, self._scope)
        # Those of a reinitialisation in progress were told already; with newcomers it goes on as one.
        fresh = [other for other in others if not other.reinitialisation]
        if others:
            self._join(crashed, others, now)
        effects: list[Effect] = []
        if fresh:
            why = f'because of the crash of background worker "{crashed.name}" (PID {crashed.pid})'
            named = reasons.listed([f'"{slot.name}"' for slot in fresh])
            message = f"terminating {reasons.count(len(fresh), 'other background worker')} {why}"
            effects.append(Log("WARNING", message, reasons.scope(self._scope.value, named, sorted(s.name for s in segments))))
        cause = reasons.reinitialised(crashed.name, outcome(end.code, end.signal))
        for slot in fresh:
            is_over = slot.registration.is_never_restarted and slot.registration.schedule is None
            intent = Intent.STOP if is_over else Intent.RESTART
            effects += self._roster.fire(slot, Event.REINITIALISE, Facts(now, cause, intent=intent, timeout=QUIT_TIMEOUT))
        return [*effects, Reinitialise(len(fresh), segments)] if others or segments else effects

    def _join(self, crashed: Slot, others: list[Slot], now: float) -> None:
        """Give the crashed one and the others one number, and with them everybody who had the number of one of them."""
        earlier = {other.reinitialisation for other in others} - {0}
        self._count += 1
        for slot in [crashed, *others, *(slot for slot in self._roster.slots if slot.reinitialisation in earlier)]:
            slot.reinitialisation = self._count
        # They wait for the end of each other.
        self._roster.changed_all(now)
