"""The slot machine: registrations, events and monotonic time in, effects out.

One object owns all slots of the host and is the only one that changes them. It performs no
I/O and reads no clock: every method takes ``now`` and returns what the host is to do, in
order. Only ``_host`` uses it. It is put together from the rooms beside it, none of which knows it;
what stands here is what can happen, and the turn.

How a call runs: match slot, generation and attempt (what belongs to the past is ignored),
turn what happened into an event of ``table``, fire it by way of ``roster``. What takes more than
that is in the room of its name: ``registrations``, ``wishes``, ``runs``, ``crashes``, ``ends``,
``timeouts``, ``shutdown``. Launches and deadlines come from ``tick`` alone, which acts on those
slots that ``agenda`` finds due; the host calls it once per turn of its loop and sleeps no longer
than ``next_deadline``.

What the machine relies on:

- Each ``Launch`` is answered by ``born`` or ``birth_failed``, also after an ``Abandon`` and
  when the loader dies. An answer that never comes costs its slot a bounded wait, no more.
- After ``born`` the host reports ``exited`` exactly once, when it has reaped the process; of a
  process that the machine had killed at its birth (late, or second) it reports nothing, because
  slot, generation and attempt would name the wrong one.
- ``Signal`` reaches only unreaped children of the host, so that no recycled pid is hit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bgworker._core import codec, reasons
from bgworker._core.actions import QUIT_TIMEOUT, Facts
from bgworker._core.agenda import Agenda
from bgworker._core.conditions import Conditions
from bgworker._core.crashes import Crashes
from bgworker._core.effects import Effect, Log, Publish, Signal
from bgworker._core.ends import Ends
from bgworker._core.exits import Exit, clean
from bgworker._core.order import Order
from bgworker._core.record import Slot
from bgworker._core.registrations import Registrations
from bgworker._core.roster import Roster, no_free_slot
from bgworker._core.runs import Runs
from bgworker._core.scope import CrashScope, Segment
from bgworker._core.shutdown import Shutdown
from bgworker._core.states import SIGKILL, WAITS_FOR_START, Origin, Phase, ShutdownMode, SlotState
from bgworker._core.table import Event, Rejection, look_up
from bgworker._core.timeouts import Timeouts
from bgworker._core.timetable import NoTimetable, Timetable
from bgworker._core.wishes import Wishes
from bgworker._spec import BackgroundWorker
from bgworker.errors import RegistrationError

__all__ = ["MAX_LAUNCHES_PER_TICK", "Exit", "Slot", "SlotMachine", "no_free_slot"]

#: So that a turn of the host's loop stays short (MAX_BGWORKERS_TO_LAUNCH in postmaster.c).
MAX_LAUNCHES_PER_TICK: Final = 100
#: Longest sentence of a worker that waits: it names itself, a host and an instant.
MAX_WAIT_TEXT: Final = 400


class SlotMachine:
    """Decides who is launched, told to go, killed, restarted and forgotten.

    Args:
        max_worker_processes: Number of slots, fixed for the life of the host.
        shutdown_timeout: Seconds from SIGTERM to SIGKILL for workers without a ``stop_timeout`` of their own.
        start_timeout: Seconds that a launched worker may take until it says that it started.
        crash_scope: How far a crash reaches (C31).
        draw: Returns numbers from 0 to 1 at random, for the jitter of restart_backoff.
        timetable: Knows when the times of schedules are.
    """

    def __init__(
        self,
        max_worker_processes: int,
        *,
        shutdown_timeout: float = 5.0,
        start_timeout: float = 60.0,
        crash_scope: CrashScope = CrashScope.ATTACHED,
        draw: Callable[[], float] = lambda: 0.0,
        timetable: Timetable | None = None,
    ) -> None:
        self.slots = [Slot(slotno) for slotno in range(max_worker_processes)]
        self._order = Order(self.slots)
        self._conditions = Conditions(self._order)
        self._agenda = Agenda(self.slots, self._conditions)
        self._roster = Roster(self.slots, self._order, self._agenda)
        self._wishes = Wishes(self._roster, shutdown_timeout)
        self._shutdown = Shutdown(self._roster, self._order, self._wishes)
        self._runs = Runs(self._roster, timetable or NoTimetable())
        self._registrations = Registrations(self._roster, self._order, self._conditions, self._runs, self._wishes)
        self._crashes = Crashes(self._roster, crash_scope)
        self._ends = Ends(self._roster, self._conditions, self._runs, self._crashes, self._shutdown, draw)
        self._timeouts = Timeouts(self._roster, self._wishes, self._runs, self._ends, self._shutdown, start_timeout, draw)

    @property
    def phase(self) -> Phase:
        """How far the database is."""
        return self._conditions.phase

    @property
    def shutdown(self) -> ShutdownMode | None:
        """The mode in force; None while the host runs."""
        return self._shutdown.mode

    @property
    def is_drained(self) -> bool:
        """Whether the host shuts down and waits for nobody any more."""
        return self._shutdown.is_drained

    # -- a host that executes itself anew --------------------------------------------------------

    def carry(self) -> dict[str, Any]:
        """Return everything that is known, as JSON values; what came with the configuration is not among it."""
        return {
            "slots": self._roster.carry(),
            **self._conditions.carry(),
            **self._shutdown.carry(),
            "reinitialisations": self._crashes.carry(),
            "ends": self._order.carry(),
        }

    def resume(self, carried: Mapping[str, Any], now: float) -> None:
        """Go on where another machine with as many slots has stopped. Called on a fresh one.

        Args:
            carried: What that one's ``carry`` has returned.
            now: Monotonic, on the same clock.

        Raises:
            UnreadableError: It is not what this version carries.
        """
        codec.expect(carried, self.carry(), "the slot machine")
        self._roster.resume(carried["slots"])
        self._conditions.resume(carried)
        self._shutdown.resume(carried)
        self._crashes.resume(carried["reinitialisations"])
        self._order.resume(carried["ends"])
        self._roster.changed_all(now)

    # -- registration ------------------------------------------------------------------------

    def register(self, worker: BackgroundWorker, origin: Origin, now: float) -> tuple[Slot, list[Effect]]:
        """Give the worker the lowest free slot, under a new generation.

        Args:
            worker: Already through ``sanity_check``.
            origin: Who registers it.
            now: Monotonic.

        Raises:
            RegistrationError: The host is shutting down.
            NoFreeSlot: Every slot is taken (C14).
        """
        if self.shutdown is not None:
            raise RegistrationError(
                f'background worker "{worker.bgw_name}" cannot be registered: the host is shutting down',
                f"A {self.shutdown.name.lower()} shutdown is in progress.",
                "Register it again when the host has been started again.",
            )
        return self._registrations.enter(worker, origin, now)

    def amend(self, slotno: int, generation: int, worker: BackgroundWorker, now: float) -> list[Effect]:
        """Take over a registration of which only that has changed which the host alone acts by; a process runs on.

        A wait for a restart gets shorter by a shorter bgw_restart_time, but not shorter than the crash-loop guard
        wants; one that grows by restart_backoff stays as it is.
        """
        slot = self._roster.find(slotno, generation)
        return [] if slot is None or self.shutdown is not None else self._registrations.amend(slot, worker, now)

    def replace(self, slotno: int, generation: int, worker: BackgroundWorker, now: float, *, is_now: bool = True) -> list[Effect]:
        """Take over a registration that a reload changed: stop the process if there is one, then start with the new.

        Args:
            slotno: The slot, with generation.
            generation: Of the registration.
            worker: The new registration.
            now: Monotonic.
            is_now: False leaves a process alone; its next life has the new registration.
        """
        slot = self._roster.find(slotno, generation)
        if slot is None or self.shutdown is not None:
            return []
        return self._registrations.replace(slot, worker, now, is_now=is_now)

    # -- what the loader and the processes report --------------------------------------------

    def born(self, slotno: int, generation: int, attempt: int, pid: int, now: float) -> list[Effect]:
        """Note the pid of a birth; a process that nobody waits for, or a second one, is killed."""
        slot = self._roster.find(slotno, generation, attempt)
        if slot is None or slot.pid is not None or isinstance(look_up(slot.state, Event.BORN), Rejection):
            return _kill_stray(self.slots, Signal(slotno, generation, pid, SIGKILL, whole_session=True))
        effects = self._roster.fire(slot, Event.BORN, Facts(now, pid=pid))
        if slot.has_announced_start:
            effects += self._roster.fire(slot, Event.STARTED, self._timeouts.of_life(slot, now))
        # One that was called off has got SIGKILL with this, and those that it came after wait for it no more.
        return effects + self._shutdown.stop_held(now)

    def lost(self, slotno: int, generation: int, attempt: int, waitstatus: int, now: float) -> list[Effect]:
        """Note that a process has ended without ever knowing what it was to be: its launch needs another one.

        If the worker was told to go meanwhile, or the host shuts down, its end is an exit like any other.
        """
        slot = self._roster.find(slotno, generation, attempt)
        is_wanted = slot is not None and slot.state is SlotState.LAUNCHING and slot.pid is not None and self.shutdown is None
        if slot is None or not is_wanted or slot.failure:
            return self.exited(slotno, generation, attempt, waitstatus, now)
        return self._roster.fire(slot, Event.LOST, Facts(now))

    def birth_failed(self, slotno: int, generation: int, attempt: int, error: str, now: float) -> list[Effect]:
        """Note that no process came of a Launch, or that the one that came is of no use."""
        slot = self._roster.find(slotno, generation, attempt)
        if slot is None or slot.state not in (SlotState.LAUNCHING, SlotState.TERMINATING):
            return []
        if slot.pid is None:
            return self._ends.never_born(slot, clean(error), now)
        if slot.state is SlotState.TERMINATING:
            return []
        return self._roster.fire(slot, Event.OVERDUE, Facts(now, cause=reasons.failed_to_start(clean(error))))

    def started(self, slotno: int, generation: int, attempt: int, now: float) -> list[Effect]:
        """Note that the worker found its function and is about to call it."""
        slot = self._roster.find(slotno, generation, attempt)
        if slot is None:
            return []
        if slot.state is SlotState.LAUNCHING and slot.pid is None:
            # A clone can speak before the loader has told its pid, and STARTED means that the pid is known.
            slot.has_announced_start = True
            return []
        return self._roster.fire(slot, Event.STARTED, self._timeouts.of_life(slot, now))

    def ready(self, slotno: int, generation: int, attempt: int, now: float) -> list[Effect]:
        """Note that a worker which says when it is ready, is; it says so once for each life."""
        slot = self._roster.find(slotno, generation, attempt)
        if slot is None or not slot.registration.says_when_ready or slot.has_said_ready:
            return []
        return self._roster.fire(slot, Event.READY, Facts(now))

    def moved(self, slotno: int, generation: int, attempt: int, is_idle: bool, now: float) -> list[Effect]:
        """Note that a worker with a watchdog moves, or begins to wait on its latch for as long as it takes."""
        slot = self._roster.find(slotno, generation, attempt)
        if slot is not None:
            self._timeouts.moved(slot, now, is_idle=is_idle)
        return []

    def waits(self, slotno: int, generation: int, attempt: int, reason: str, now: float) -> list[Effect]:
        """Note what a singleton worker waits for before it starts; it may say so again, in other words.

        Only such a worker may, only once its pid is known, and not after it said that it cannot start:
        with the deadline goes what bounds a launch.
        """
        slot = self._roster.find(slotno, generation, attempt)
        if slot is None or slot.pid is None or slot.failure or not slot.registration.singleton:
            return []
        effects = self._roster.fire(slot, Event.WAITS, Facts(now, reason=clean(reason, MAX_WAIT_TEXT)))
        return effects + self._shutdown.stop_waiting(slot, now)

    def start_failed(self, slotno: int, generation: int, attempt: int, error: str, now: float) -> list[Effect]:
        """Note why the worker cannot start; its exit follows, and is seen to."""
        slot = self._roster.find(slotno, generation, attempt)
        if slot is None or slot.failure:
            return []
        cause = reasons.failed_to_start(clean(error))
        return self._roster.fire(slot, Event.START_FAILED, Facts(now, cause=cause, timeout=QUIT_TIMEOUT))

    def exited(self, slotno: int, generation: int, attempt: int, waitstatus: int, now: float, tail: str = "") -> list[Effect]:
        """Take the end of a process and decide what follows.

        Args:
            slotno: The slot, with generation and attempt as in the Launch.
            generation: Of the registration.
            attempt: Of the launch.
            waitstatus: As wait(2) gave it.
            now: Monotonic.
            tail: The last line it wrote to stderr, if that is known.
        """
        slot = self._roster.find(slotno, generation, attempt)
        return [] if slot is None else self._ends.exited(slot, waitstatus, now, tail)

    def attach(self, slotno: int, generation: int, attempt: int, segment: Segment, now: float) -> list[Effect]:
        """Note that a process is about to get a shared memory segment, which ties it to everybody who has it (C31).

        Raises:
            SharedMemoryError: The process has not started, so that its end would be no crash, or is on its way out.
        """
        return self._crashes.attach(self._roster.find(slotno, generation, attempt), segment, now)

    # -- what people want --------------------------------------------------------------------

    def terminate(self, slotno: int, generation: int, now: float, *, by_operator: bool = False) -> list[Effect]:
        """Have the worker go and not come back (C35); idempotent, and stronger than every restart."""
        slot = self._roster.find(slotno, generation)
        cause = reasons.BY_OPERATOR if by_operator else reasons.BY_HANDLE
        return [] if slot is None else self._wishes.terminate(slot, cause, now)

    def scale_away(self, slotno: int, generation: int, now: float) -> list[Effect]:
        """Have an instance go because there are to be fewer of them; as terminate, but another way leads back."""
        slot = self._roster.find(slotno, generation)
        return [] if slot is None else self._wishes.terminate(slot, reasons.BY_SCALE, now)

    def restart(self, slotno: int, generation: int, now: float) -> list[Effect]:
        """Stop the process if there is one, then launch at once whatever its exit code was."""
        slot = self._roster.find(slotno, generation)
        if slot is None or self.shutdown is not None:
            return []
        return self._wishes.restart(slot, reasons.BY_RESTART, now)

    def start(self, slotno: int, generation: int, now: float) -> list[Effect]:
        """Launch a worker between two lives now instead of later."""
        slot = self._roster.find(slotno, generation)
        if slot is None or self.shutdown is not None:
            return []
        return self._wishes.start(slot, now)

    def recycle(self, slotno: int, generation: int, cause: str, now: float, hint: str = "") -> list[Effect]:
        """Give a running worker a new process, as a restart does; a host that shuts down does not begin one.

        With a hint, what to do about it, the log has it as a warning.
        """
        slot = self._roster.find(slotno, generation)
        return [] if slot is None else self._timeouts.recycle(slot, cause, now, hint)

    # -- what happens to the host ------------------------------------------------------------

    def set_phase(self, phase: Phase, detail: str, now: float) -> list[Effect]:
        """Take the database's phase; a lower one holds back those to come, and stops those that asked for it (C07).

        Args:
            phase: How far the database is.
            detail: Why it is no further, for the reasons of those who wait; may be empty.
            now: Monotonic.
        """
        self._conditions.set_phase(phase, detail)
        self._roster.changed_all(now)
        effects: list[Effect] = []
        for slot in self.slots:
            if slot.state in WAITS_FOR_START and slot.restart_at is None:
                effects += self._conditions.reword(slot)
            elif self.shutdown is None and (cause := self._conditions.lost(slot)):
                effects += self._wishes.restart(slot, cause, now)
        return effects

    def clock_was_set(self, now: float) -> list[Effect]:
        """Find the times of schedules anew: the wall clock has leapt."""
        return self._runs.clock_was_set(now)

    def begin_shutdown(self, mode: ShutdownMode, now: float) -> list[Effect]:
        """Begin to stop, or stop in a stricter mode; a mode that is not stricter changes nothing."""
        return self._shutdown.begin(mode, now)

    def set_live_handles(self, count: int, now: float) -> list[Effect]:
        """Take the number of live handles that connections hold; a smart shutdown waits for them."""
        return self._shutdown.set_live_handles(count, now)

    # -- the turn ----------------------------------------------------------------------------

    def tick(self, now: float) -> list[Effect]:
        """Act on what time has brought: deadlines, and launches that are due."""
        deadline = self.next_deadline()
        if deadline is None or deadline > now:
            return []
        effects: list[Effect] = []
        for slot in self._agenda.take_due(now):
            effects += self._timeouts.act(slot, now)
        launches = 0
        # After the deadlines: one that gives up a birth may end the wait of others.
        for slot in self._agenda.take_due(now):
            if slot.state not in WAITS_FOR_START:
                continue
            if self._conditions.unmet(slot.registration):
                # Its own time is over; from here on it waits for the phase or for others alone, and says so.
                slot.restart_at = None
                effects += self._conditions.reword(slot) or [Publish(slot.slotno)]
            elif launches < MAX_LAUNCHES_PER_TICK:
                launches += 1
                effects += self._roster.fire(slot, Event.LAUNCH, Facts(now, timeout=self._timeouts.of_start(slot)))
        return effects + self._shutdown.stop_held(now)

    def next_deadline(self) -> float | None:
        """Return when tick() has something to do: an instant that may lie in the past, or None for never."""
        return self._agenda.earliest()


def _kill_stray(slots: Sequence[Slot], signal: Signal) -> list[Effect]:
    """Kill a process that was born too late, or second.

    Never by a pid that is a worker's: either the same birth was told twice, or the pid has been recycled.
    """
    if any(slot.pid == signal.pid for slot in slots):
        return []
    return [Log("DEBUG", f"killing process {signal.pid}: its birth is not waited for any more"), signal]
