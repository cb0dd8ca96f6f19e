"""What somebody wants of a worker - that it goes for good, comes again, or stops with the host - as events with their facts.

Which wish wins over which is ``actions``' matter, what follows the end is ``restart``'s. Made by
``slots``; the rooms of ``_core`` that have workers go use it.
"""

from __future__ import annotations

from bgworker._core import reasons
from bgworker._core.actions import QUIT_TIMEOUT, Facts
from bgworker._core.effects import Effect
from bgworker._core.record import Slot
from bgworker._core.roster import Roster
from bgworker._core.states import Intent
from bgworker._core.table import Event

__all__ = ["Wishes"]


class Wishes:
    """Has workers go, and says what for. A slot without a process is granted its wish on the spot.

    Args:
        roster: The slots.
        stop_timeout: Seconds from the stop signal to SIGKILL for workers without a ``stop_timeout`` of their own.
    """

    def __init__(self, roster: Roster, stop_timeout: float) -> None:
        self._roster = roster
        self._stop_timeout = stop_timeout

    def stop_timeout_of(self, slot: Slot) -> float:
        """Return the seconds that its process gets to go."""
        own = slot.registration.stop_timeout
        return self._stop_timeout if own is None else own

    def terminate(self, slot: Slot, cause: str, now: float) -> list[Effect]:
        """Have it go and not come back."""
        return self._wish(slot, Event.TERMINATE, Intent.FORGET, cause, now)

    def restart(self, slot: Slot, cause: str, now: float) -> list[Effect]:
        """Have it go, if it has a process, and launched again at once."""
        return self._wish(slot, Event.RESTART, Intent.RESTART, cause, now)

    def start(self, slot: Slot, now: float) -> list[Effect]:
        """Have one that is between two lives launched now instead of later."""
        return self._roster.fire(slot, Event.START, Facts(now, cause=reasons.BY_START))

    def stop(self, slot: Slot, now: float) -> list[Effect]:
        """Have it go because the host shuts down."""
        return self._wish(slot, Event.STOP, Intent.STOP, reasons.BY_SHUTDOWN, now)

    def quit(self, slot: Slot, now: float) -> list[Effect]:
        """Have it go because the host shuts down, by the short ladder."""
        return self._wish(slot, Event.QUIT, Intent.STOP, reasons.BY_SHUTDOWN, now, timeout=QUIT_TIMEOUT)

    def _wish(
        self, slot: Slot, event: Event, intent: Intent, cause: str, now: float, *, timeout: float | None = None
    ) -> list[Effect]:
        # The reason is the last word on a slot that has no process.
        reason = reasons.without_process(slot, intent, cause)
        seconds = self.stop_timeout_of(slot) if timeout is None else timeout
        return self._roster.fire(slot, event, Facts(now, cause, reason, intent, timeout=seconds))
