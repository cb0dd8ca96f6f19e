"""What the slot machine asks of the host: plain frozen records, in the order in which they are to be applied.

The machine has already changed its own state when it returns them. ``Publish`` stands before
everything that makes others look (``Started``, ``Exited``, ``Forgotten``): whoever is woken
must find the shared table already telling the new truth (bgworker.c: report before notify).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bgworker._core.exits import Exit
from bgworker._core.record import Segment
from bgworker._core.states import Origin
from bgworker._spec import BackgroundWorker

__all__ = ["Abandon", "Effect", "Exited", "Forgotten", "Launch", "Level", "Log", "Publish", "Reinitialise", "Signal", "Started"]

Level = Literal["DEBUG", "LOG", "WARNING"]


@dataclass(frozen=True, slots=True)
class Launch:
    """Have a process born for the slot. Answer with ``born`` or ``birth_failed``, always with one of them."""

    slotno: int
    generation: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Signal:
    """Send a signal, if this pid is still an unreaped child of the host."""

    slotno: int
    generation: int
    pid: int
    signum: int
    #: To every process of the worker's session, not to the worker alone.
    whole_session: bool


@dataclass(frozen=True, slots=True)
class Abandon:
    """Nobody wants the birth in flight any more. Still answer the Launch: ``born`` gets the process killed."""

    slotno: int
    generation: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Publish:
    """What others see of the slot has changed: rewrite its shared record, look at the waits on it again."""

    slotno: int


@dataclass(frozen=True, slots=True)
class Started:
    """The worker is about to call its function: notify, tell the event listeners."""

    slotno: int
    generation: int
    pid: int


@dataclass(frozen=True, slots=True)
class Exited:
    """A process of the worker is gone: notify, tell the event listeners, write history."""

    slotno: int
    generation: int
    #: The registration that the process was born with, even when a reload has changed it since.
    worker: BackgroundWorker
    pid: int | None
    exit: Exit


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The registration is over and the slot free again; everything worth keeping is in here."""

    slotno: int
    generation: int
    worker: BackgroundWorker
    origin: Origin
    last_exit: Exit | None
    #: Why there is no further life, as ``status`` lists it under finished.
    reason: str
    #: It ended in a failure, and nobody wanted it to end.
    has_failed: bool = False


@dataclass(frozen=True, slots=True)
class Reinitialise:
    """A worker crashed (C31): nobody may be handed these segments any more, and whoever shared them is on the way out."""

    #: How many other workers are ended because of it.
    others: int
    segments: frozenset[Segment]


@dataclass(frozen=True, slots=True)
class Log:
    """A line for the host's log."""

    level: Level
    message: str
    detail: str = ""
    hint: str = ""


Effect = Launch | Signal | Abandon | Publish | Started | Exited | Forgotten | Reinitialise | Log
