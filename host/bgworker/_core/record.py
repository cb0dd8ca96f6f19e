"""The record of one slot: what the machine knows about it, in the host's private memory.

Who writes what: ``roster`` writes the state, the functions of ``actions`` most of the rest, the other rooms of
``_core`` what is theirs alone (a reason, a schedule, the segments); the host reads. Nothing
here is shared memory; the host copies what others may see when ``Publish`` says so.

Which fields mean something in which state::

    state             worker  pid        attempt  restart_at     kill_at
    FREE              None    None       0        None           None
    NOT_YET_STARTED   set     None       0        its schedule   None
    LAUNCHING         set     as born    1..      None           end of the start timeout,
                                                                 None while it waits
    STARTED           set     set        1..      None           None; end of the start timeout
                                                                 until it is ready
    WAITING_RESTART   set     None       1..      set, or None   None
    TERMINATING       set     set, or    1..      None           next step of the kill ladder,
                              not born                           None after SIGKILL
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

from bgworker._core.exits import Exit
from bgworker._core.states import Intent, Origin, SlotState
from bgworker._core.timetable import Run
from bgworker._spec import BackgroundWorker

__all__ = ["Segment", "Slot"]


class Segment(NamedTuple):
    """One shared memory segment: a name that is made again is another segment."""

    name: str
    #: How often memory of this name has been made.
    generation: int


@dataclass(slots=True)
class Slot:
    """One of the max_worker_processes slots; made once and reused, the generation tells the registrations apart."""

    slotno: int
    #: Grows by one at each registration into this slot; 0 = never used.
    generation: int = 0
    state: SlotState = SlotState.FREE
    worker: BackgroundWorker | None = None
    origin: Origin = Origin.DYNAMIC
    #: Known from ``born`` until the process is reaped.
    pid: int | None = None
    #: Launches in this registration: 1 for the first, 0 before it.
    attempt: int = 0
    #: All instants are monotonic seconds. Of the current life; None before its start and after its end.
    started_at: float | None = None
    #: The next launch: after the last life, or by the schedule. None in WAITING_RESTART: the time is over, only the phase is
    #: waited for.
    restart_at: float | None = None
    kill_at: float | None = None
    #: In STARTED: when it is stuck if it says nothing until then; None without a watchdog, and while it waits on its latch.
    stuck_at: float | None = None
    #: In STARTED: when its max_age is reached.
    recycle_at: float | None = None
    #: The next time of its schedule, if it has one. In STARTED it must be done by then, and None once it was told that it is not.
    run: Run | None = None
    has_started_once: bool = False
    #: The current process has said that others may count on it.
    has_said_ready: bool = False
    last_exit: Exit | None = None
    #: What follows the exit that the host asked for; None = nobody asked.
    intent: Intent | None = None
    #: A sentence with cause and next act, as status shows it; empty only for a healthy started worker.
    reason: str = ""
    #: The shared memory segments that the current process may have mapped; known before it gets them.
    segments: frozenset[Segment] = frozenset()

    # From here on: the machine's own notes, of no use to a reader.
    #: The first half of ``reason``, without the next act.
    cause: str = ""
    #: Seconds that the process was given to go, for the reason.
    grace: float = 0.0
    #: When the current life was launched.
    launched_at: float = 0.0
    #: ``failed to start: ...`` or ``stuck: ...``, once that is known of the current life.
    failure: str = ""
    #: The worker's "started" overtook the loader's "born"; it counts from born on.
    has_announced_start: bool = False
    #: Lives in a row that ended by themselves within a second of their start; input of the crash-loop guard.
    quick_exits: int = 0
    #: Lives in a row that failed; input of restart_backoff.
    failures: int = 0
    #: Takes the place of ``worker`` when the process is gone (reload).
    replacement: BackgroundWorker | None = None
    #: The reinitialisation that its last life ended in, or is ending in: it starts again when nobody of it is left. 0 = none.
    reinitialisation: int = 0

    @property
    def restarts(self) -> int:
        """Launches after the first, in this registration."""
        return max(self.attempt - 1, 0)

    @property
    def is_waiting(self) -> bool:
        """Whether its process waits for something outside of this host before it starts."""
        return self.state is SlotState.LAUNCHING and self.kill_at is None

    @property
    def is_ready(self) -> bool:
        """Whether it runs, and others may count on it."""
        return self.state is SlotState.STARTED and (self.has_said_ready or not self.registration.says_when_ready)

    @property
    def terminate_requested(self) -> bool:
        """Whether the worker was terminated, so that nothing can start it again (C35)."""
        return self.intent is Intent.FORGET

    @property
    def registration(self) -> BackgroundWorker:
        """The worker, where the state says that there is one."""
        assert self.worker is not None, f"slot {self.slotno} is free"
        return self.worker

    @property
    def name(self) -> str:
        """The worker's name, for log lines."""
        return self.registration.bgw_name

    def end_life(self, last_exit: Exit | None) -> None:
        """Drop everything that belonged to one process; ``last_exit`` None keeps the older one."""
        self.pid = self.started_at = self.kill_at = self.intent = None
        self.stuck_at = self.recycle_at = self.run = None
        self.failure = ""
        self.has_announced_start = self.has_said_ready = False
        self.segments = frozenset()
        if last_exit is not None:
            self.last_exit = last_exit

    def clear(self) -> None:
        """Drop everything but the slot's number and generation."""
        for field in fields(self):
            if field.name not in ("slotno", "generation"):
                setattr(self, field.name, field.default)
