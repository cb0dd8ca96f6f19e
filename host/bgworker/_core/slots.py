"""The slot machine: registrations, events and monotonic time in, effects out.

One object owns all slots of the host and is the only one that changes them. It performs no
I/O and reads no clock: every method takes ``now`` and returns what the host is to do, in
order. Only ``_host`` uses it.

How a call runs: match slot, generation and attempt (what belongs to the past is ignored),
turn what happened into an event of ``table``, fire it. Launches and deadlines come from
``tick`` alone, which compares every slot with what it should be; the host calls it once per
turn of its loop and sleeps no longer than ``next_deadline``.

What the machine relies on:

- Each ``Launch`` is answered by ``born`` or ``birth_failed``, also after an ``Abandon`` and
  when the loader dies. An answer that never comes costs its slot a bounded wait, no more.
- After ``born`` the host reports ``exited`` exactly once, when it has reaped the process; of a
  process that the machine had killed at its birth (late, or second) it reports nothing, because
  slot, generation and attempt would name the wrong one.
- ``Signal`` reaches only unreaped children of the host, so that no recycled pid is hit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from bgworker._core import codec, order, reasons
from bgworker._core.actions import ACTIONS, ANSWER_TIMEOUT, QUIT_TIMEOUT, WATCHDOG_SLACK, Facts, who
from bgworker._core.agenda import Agenda
from bgworker._core.effects import Effect, Exited, Level, Log, Publish, Reinitialise, Signal
from bgworker._core.exits import Exit, clean, ended_text, outcome, read_exit
from bgworker._core.record import Slot
from bgworker._core.restart import GUARDED_INTERVAL, Verdict, after_exit
from bgworker._core.scope import CrashScope, Segment, in_scope
from bgworker._core.states import (
    HAS_PROCESS,
    NEEDED_PHASE,
    SIGKILL,
    WAITS_FOR_START,
    Intent,
    Origin,
    Phase,
    ShutdownMode,
    SlotState,
)
from bgworker._core.table import Event, Rejection, look_up
from bgworker._core.timetable import NoTimetable, Run, Timetable
from bgworker._spec import BackgroundWorker
from bgworker.errors import NoFreeSlot, RegistrationError, SharedMemoryError

__all__ = ["MAX_LAUNCHES_PER_TICK", "Exit", "Slot", "SlotMachine", "no_free_slot"]

#: So that a turn of the host's loop stays short (MAX_BGWORKERS_TO_LAUNCH in postmaster.c).
MAX_LAUNCHES_PER_TICK: Final = 100
#: A max_age is made longer by at most this part of it, at random.
RECYCLE_JITTER: Final = 0.1
#: How many types the refusal of a registration names as holders of the slots.
NAMED_HOLDERS: Final = 5
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
        self._timetable = timetable or NoTimetable()
        self.slots = [Slot(slotno) for slotno in range(max_worker_processes)]
        self.phase = Phase.STARTING
        #: The mode in force; None while the host runs. It only ever gets stricter.
        self.shutdown: ShutdownMode | None = None
        self._shutdown_timeout = shutdown_timeout
        self._start_timeout = start_timeout
        self._crash_scope = crash_scope
        self._draw = draw
        self._reinitialisations = 0
        self._phase_detail = ""
        self._live_handles = 0
        #: The latest ``now`` heard of: what "at once" means to next_deadline().
        self._now = float("-inf")
        #: No slot below it is free.
        self._first_free = 0
        # A thousand slots must not be looked at because of one: what each waits for is kept, and looked at again when it changed.
        self._agenda = Agenda()
        #: Whether slots may wait for the end of each other (C31): then no slot's deadline is its own matter alone.
        self._has_groups = False
        self._order = order.Order(self.slots)
        #: Running workers that a fast shutdown has not told yet.
        self._held: dict[int, list[str]] = {}

    # -- a host that executes itself anew --------------------------------------------------------

    def carry(self) -> dict[str, Any]:
        """Return everything that is known, as JSON values; what came with the configuration is not among it."""
        return {
            "slots": [codec.write(slot) for slot in self.slots if slot.generation],
            "phase": self.phase.value,
            "phase_detail": self._phase_detail,
            "shutdown": None if self.shutdown is None else self.shutdown.value,
            "reinitialisations": self._reinitialisations,
            "live_handles": self._live_handles,
            "held": [[slotno, names] for slotno, names in self._held.items()],
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
        for slot in codec.read(list[Slot], carried["slots"]):
            if slot.slotno >= len(self.slots) or (slot.worker is None) is not (slot.state is SlotState.FREE):
                raise codec.UnreadableError(f"slot {slot.slotno} cannot be one of {len(self.slots)}, or contradicts itself")
            self.slots[slot.slotno] = slot
        self.phase = codec.read(Phase, carried["phase"])
        self._phase_detail = codec.read(str, carried["phase_detail"])
        self.shutdown = None if carried["shutdown"] is None else codec.read(ShutdownMode, carried["shutdown"])
        self._reinitialisations = codec.read(int, carried["reinitialisations"])
        self._live_handles = codec.read(int, carried["live_handles"])
        self._held = dict(codec.read(list[tuple[int, list[str]]], carried["held"]))
        self._order.resume(carried["ends"])
        self._first_free = next((slot.slotno for slot in self.slots if slot.state is SlotState.FREE), len(self.slots))
        self._all_changed(now)

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
        slot = next((slot for slot in islice(self.slots, self._first_free, None) if slot.state is SlotState.FREE), None)
        if slot is None:
            raise no_free_slot(self.slots)
        self._first_free = slot.slotno + 1
        slot.generation += 1
        slot.worker = worker
        slot.origin = origin
        self._order.registered(worker)
        run = self._next_run(worker, now)
        reason = self._waiting_reason(slot) if run is None else reasons.next_run("", run.text)
        return slot, self._fire(slot, Event.REGISTER, Facts(now, reason=reason, run=run))

    def amend(self, slotno: int, generation: int, worker: BackgroundWorker, now: float) -> list[Effect]:
        """Take over a registration of which only that has changed which the host alone acts by; a process runs on.

        A wait for a restart gets shorter by a shorter bgw_restart_time, but not shorter than the crash-loop guard
        wants; one that grows by restart_backoff stays as it is.
        """
        slot = self._find(slotno, generation)
        if slot is None or self.shutdown is not None:
            return []
        if slot.replacement is not None:
            slot.replacement = worker
            return []
        slot.worker = worker
        self._changed(slot, now)
        if slot.state in WAITS_FOR_START and slot.restart_at is None:
            slot.reason = self._waiting_reason(slot)
        elif slot.restart_at is not None and not worker.is_never_restarted and worker.restart_backoff is None:
            delay = max(float(worker.bgw_restart_time or 0), GUARDED_INTERVAL)
            if now + delay < slot.restart_at:
                slot.restart_at = now + delay
                slot.reason = reasons.restarts(slot.cause, delay, slot.attempt + 1, "")
        return [Publish(slot.slotno)]

    def replace(self, slotno: int, generation: int, worker: BackgroundWorker, now: float, *, is_now: bool = True) -> list[Effect]:
        """Take over a registration that a reload changed: stop the process if there is one, then start with the new.

        Args:
            slotno: The slot, with generation.
            generation: Of the registration.
            worker: The new registration.
            now: Monotonic.
            is_now: False leaves a process alone; its next life has the new registration.
        """
        slot = self._find(slotno, generation)
        if slot is None or self.shutdown is not None:
            return []
        if not is_now and slot.state in HAS_PROCESS:
            slot.replacement = worker
            return []
        if slot.state in HAS_PROCESS:
            slot.replacement = worker
        else:
            slot.worker = worker
            if (run := self._next_run(worker, now)) is not None:
                slot.cause = slot.cause or reasons.BY_REPLACEMENT
                return self._await_run(slot, run, now)
        if slot.state is SlotState.NOT_YET_STARTED:
            # Nothing to stop, but it may wait for another phase now.
            self._changed(slot, now)
            slot.restart_at = slot.run = None
            slot.reason = self._waiting_reason(slot)
            return [Publish(slot.slotno)]
        return self._fire(slot, Event.RESTART, self._wish(slot, Intent.RESTART, reasons.BY_REPLACEMENT, now))

    # -- what the loader and the processes report --------------------------------------------

    def born(self, slotno: int, generation: int, attempt: int, pid: int, now: float) -> list[Effect]:
        """Note the pid of a birth; a process that nobody waits for, or a second one, is killed."""
        slot = self._find(slotno, generation, attempt)
        if slot is None or slot.pid is not None or isinstance(look_up(slot.state, Event.BORN), Rejection):
            return _kill_stray(self.slots, Signal(slotno, generation, pid, SIGKILL, whole_session=True))
        effects = self._fire(slot, Event.BORN, Facts(now, pid=pid))
        if slot.has_announced_start:
            effects += self._fire(slot, Event.STARTED, self._starts(slot, now))
        # One that was called off has got SIGKILL with this, and those that it came after wait for it no more.
        return effects + self._stop_those_held(now)

    def lost(self, slotno: int, generation: int, attempt: int, waitstatus: int, now: float) -> list[Effect]:
        """Note that a process has ended without ever knowing what it was to be: its launch needs another one.

        If the worker was told to go meanwhile, or the host shuts down, its end is an exit like any other.
        """
        slot = self._find(slotno, generation, attempt)
        is_wanted = slot is not None and slot.state is SlotState.LAUNCHING and slot.pid is not None and self.shutdown is None
        if slot is None or not is_wanted or slot.failure:
            return self.exited(slotno, generation, attempt, waitstatus, now)
        return self._fire(slot, Event.LOST, Facts(now))

    def birth_failed(self, slotno: int, generation: int, attempt: int, error: str, now: float) -> list[Effect]:
        """Note that no process came of a Launch, or that the one that came is of no use."""
        slot = self._find(slotno, generation, attempt)
        if slot is None or slot.state not in (SlotState.LAUNCHING, SlotState.TERMINATING):
            return []
        if slot.pid is None:
            return self._never_born(slot, clean(error), now)
        if slot.state is SlotState.TERMINATING:
            return []
        return self._fire(slot, Event.OVERDUE, Facts(now, cause=reasons.failed_to_start(clean(error))))

    def started(self, slotno: int, generation: int, attempt: int, now: float) -> list[Effect]:
        """Note that the worker found its function and is about to call it."""
        slot = self._find(slotno, generation, attempt)
        if slot is None:
            return []
        if slot.state is SlotState.LAUNCHING and slot.pid is None:
            # A clone can speak before the loader has told its pid, and STARTED means that the pid is known.
            slot.has_announced_start = True
            return []
        return self._fire(slot, Event.STARTED, self._starts(slot, now))

    def ready(self, slotno: int, generation: int, attempt: int, now: float) -> list[Effect]:
        """Note that a worker which says when it is ready, is; it says so once for each life."""
        slot = self._find(slotno, generation, attempt)
        if slot is None or not slot.registration.says_when_ready or slot.has_said_ready:
            return []
        return self._fire(slot, Event.READY, Facts(now))

    def moved(self, slotno: int, generation: int, attempt: int, is_idle: bool, now: float) -> list[Effect]:
        """Note that a worker with a watchdog moves, or begins to wait on its latch for as long as it takes."""
        slot = self._find(slotno, generation, attempt)
        if slot is not None and slot.state is SlotState.STARTED and slot.registration.watchdog is not None:
            self._changed(slot, now)
            slot.stuck_at = None if is_idle else now + slot.registration.watchdog * WATCHDOG_SLACK
        return []

    def waits(self, slotno: int, generation: int, attempt: int, reason: str, now: float) -> list[Effect]:
        """Note what a singleton worker waits for before it starts; it may say so again, in other words.

        Only such a worker may, only once its pid is known, and not after it said that it cannot start:
        with the deadline goes what bounds a launch.
        """
        slot = self._find(slotno, generation, attempt)
        if slot is None or slot.pid is None or slot.failure or not slot.registration.singleton:
            return []
        effects = self._fire(slot, Event.WAITS, Facts(now, reason=clean(reason, MAX_WAIT_TEXT)))
        return effects + self._stop_waiting(slot, now) if self.shutdown is not None else effects

    def start_failed(self, slotno: int, generation: int, attempt: int, error: str, now: float) -> list[Effect]:
        """Note why the worker cannot start; its exit follows, and is seen to."""
        slot = self._find(slotno, generation, attempt)
        if slot is None or slot.failure:
            return []
        cause = reasons.failed_to_start(clean(error))
        return self._fire(slot, Event.START_FAILED, Facts(now, cause=cause, timeout=QUIT_TIMEOUT))

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
        slot = self._find(slotno, generation, attempt)
        if slot is None:
            return []
        if slot.state not in HAS_PROCESS:
            return [_rejection(slot, Event.GONE_FOR_GOOD, Rejection.NO_PROCESS)]
        has_started = slot.started_at is not None and not reasons.is_failed_start(slot.failure)
        was_requested = slot.intent is not None
        asked = slot.cause if was_requested else ""
        end = read_exit(
            waitstatus,
            now,
            tail,
            failure=slot.failure,
            has_started=has_started,
            was_requested=was_requested,
            asked=asked,
            success_codes=slot.registration.success_exit_codes,
            is_command=slot.registration.command is not None,
        )
        is_trouble = end.is_crash or end.is_failed_start
        level: Level = "WARNING" if is_trouble else "DEBUG" if end.is_success or end.code == 0 else "LOG"
        ended_with_it = self._reinitialise(slot, end, now) if end.is_crash else []
        # Publish stands first; the exit is told before the forgetting that may follow from it.
        verdict = self._verdict(slot, end, now)
        if verdict.missed:
            level = "WARNING" if is_trouble else "LOG"
        log = Log(level, ended_text(slot.name, slot.pid, end.code, end.signal), reasons.sentence(verdict.reason))
        exited = Exited(slotno, generation, slot.registration, slot.pid, end)
        published, *rest = self._conclude(slot, verdict, end, now)
        return [published, log, exited, *rest, *ended_with_it, *self._end_of_smart(now), *self._stop_those_held(now)]

    def attach(self, slotno: int, generation: int, attempt: int, segment: Segment, now: float) -> list[Effect]:
        """Note that a process is about to get a shared memory segment, which ties it to everybody who has it (C31).

        Raises:
            SharedMemoryError: The process has not started, so that its end would be no crash, or is on its way out.
        """
        slot = self._find(slotno, generation, attempt)
        if slot is None or slot.state is not SlotState.STARTED:
            raise SharedMemoryError(
                f'could not attach to shared memory segment "{segment.name}": the worker is not running',
                "Memory is shared only by workers whose function has been called and that have not been told to stop.",
                "Attach in the worker's function, not when its module is imported.",
            )
        if segment in slot.segments:
            return []
        slot.segments |= {segment}
        self._now = max(self._now, now)
        return [Publish(slotno)]

    def _reinitialise(self, crashed: Slot, end: Exit, now: float) -> list[Effect]:
        """Take everybody down whom the crash concerns; called while the crashed slot still has its segments (C31)."""
        others, segments = in_scope(self.slots, crashed, self._crash_scope)
        # Those of a reinitialisation in progress were told already; with newcomers it goes on as one.
        fresh = [other for other in others if not other.reinitialisation]
        if others:
            earlier = {other.reinitialisation for other in others} - {0}
            self._reinitialisations += 1
            self._has_groups = True
            for slot in self.slots:
                if slot is crashed or slot in fresh or slot.reinitialisation in earlier:
                    slot.reinitialisation = self._reinitialisations
        effects: list[Effect] = []
        if fresh:
            why = f'because of the crash of background worker "{crashed.name}" (PID {crashed.pid})'
            named = reasons.listed([f'"{slot.name}"' for slot in fresh])
            message = f"terminating {reasons.count(len(fresh), 'other background worker')} {why}"
            effects.append(Log("WARNING", message, reasons.scope(self._crash_scope.value, named, sorted(s.name for s in segments))))
        cause = reasons.reinitialised(crashed.name, outcome(end.code, end.signal))
        for slot in fresh:
            is_over = slot.registration.is_never_restarted and slot.registration.schedule is None
            intent = Intent.STOP if is_over else Intent.RESTART
            effects += self._fire(slot, Event.REINITIALISE, Facts(now, cause, intent=intent, timeout=QUIT_TIMEOUT))
        return [*effects, Reinitialise(len(fresh), segments)] if others or segments else effects

    # -- what people want --------------------------------------------------------------------

    def terminate(self, slotno: int, generation: int, now: float, *, by_operator: bool = False) -> list[Effect]:
        """Have the worker go and not come back (C35); idempotent, and stronger than every restart."""
        slot = self._find(slotno, generation)
        if slot is None:
            return []
        cause = reasons.BY_OPERATOR if by_operator else reasons.BY_HANDLE
        return self._fire(slot, Event.TERMINATE, self._wish(slot, Intent.FORGET, cause, now))

    def restart(self, slotno: int, generation: int, now: float) -> list[Effect]:
        """Stop the process if there is one, then launch at once whatever its exit code was."""
        slot = self._find(slotno, generation)
        if slot is None or self.shutdown is not None:
            return []
        return self._fire(slot, Event.RESTART, self._wish(slot, Intent.RESTART, reasons.BY_RESTART, now))

    def start(self, slotno: int, generation: int, now: float) -> list[Effect]:
        """Launch a worker between two lives now instead of later."""
        slot = self._find(slotno, generation)
        if slot is None or self.shutdown is not None:
            return []
        return self._fire(slot, Event.START, Facts(now, cause=reasons.BY_START))

    # -- what happens to the host ------------------------------------------------------------

    def set_phase(self, phase: Phase, detail: str, now: float) -> list[Effect]:
        """Take the database's phase; a lower one holds back those to come, and stops those that asked for it (C07).

        Args:
            phase: How far the database is.
            detail: Why it is no further, for the reasons of those who wait; may be empty.
            now: Monotonic.
        """
        self.phase, self._phase_detail = phase, detail
        self._all_changed(now)
        effects: list[Effect] = []
        for slot in self.slots:
            if slot.state in WAITS_FOR_START and slot.restart_at is None:
                effects += self._reword(slot)
            elif self._must_stop(slot):
                cause = reasons.phase_lost(reasons.needed_phase(slot))
                effects += self._fire(slot, Event.RESTART, self._wish(slot, Intent.RESTART, cause, now))
        return effects

    def clock_was_set(self, now: float) -> list[Effect]:
        """Find the times of schedules anew: the wall clock has leapt."""
        self._all_changed(now)
        effects: list[Effect] = []
        for slot in self.slots:
            if slot.run is None:
                continue
            is_waiting = slot.state in WAITS_FOR_START
            if is_waiting and self._timetable.has_come(slot.run):
                # The clock leapt over it, or the machine slept: once, at once. What waits for the phase alone goes on to.
                slot.restart_at = None if slot.restart_at is None else now
            elif (run := self._next_run(slot.registration, now)) is not None:
                # What is due already, or was asked for, is launched in this turn.
                if is_waiting and slot.restart_at is not None and slot.restart_at > now:
                    effects += self._await_run(slot, run, now)
                elif slot.state is SlotState.STARTED:
                    slot.run = run
        return effects

    def begin_shutdown(self, mode: ShutdownMode, now: float) -> list[Effect]:
        """Begin to stop, or stop in a stricter mode; a mode that is not stricter changes nothing."""
        if self.shutdown is not None and mode <= self.shutdown:
            return []
        self.shutdown = mode
        self._all_changed(now)
        effects: list[Effect] = [Log("LOG", f"received {mode.name.lower()} shutdown request")]
        effects += self._stop_all(mode, now)
        if mode is ShutdownMode.SMART and (awaited := self._awaited()):
            effects[0] = Log("LOG", "received smart shutdown request", f"It waits for {awaited}.")
        return effects + self._end_of_smart(now)

    def set_live_handles(self, count: int, now: float) -> list[Effect]:
        """Take the number of live handles that connections hold; a smart shutdown waits for them."""
        self._live_handles = count
        return self._end_of_smart(now)

    @property
    def is_drained(self) -> bool:
        """Whether the host shuts down and waits for nobody any more."""
        if self.shutdown is None or self.shutdown is ShutdownMode.SMART:
            return False
        return all(slot.state is SlotState.FREE for slot in self.slots)

    # -- the turn ----------------------------------------------------------------------------

    def tick(self, now: float) -> list[Effect]:
        """Act on what time has brought: deadlines, and launches that are due."""
        deadline = self.next_deadline()
        if deadline is None or deadline > now:
            return []
        self._now = max(self._now, now)
        effects: list[Effect] = []
        for slot in self._take_due(now):
            if slot.kill_at is not None and slot.kill_at <= now:
                effects += self._overdue(slot, now)
            elif slot.state is SlotState.STARTED:
                effects += self._look_at_running(slot, now)
        launches = 0
        # After the deadlines: one that gives up a birth may end the wait of others.
        for slot in self._take_due(now):
            if slot.state not in WAITS_FOR_START:
                continue
            if self._is_held_back(slot) or self._order.unmet(slot.registration):
                # Its own time is over; from here on it waits for the phase or for others alone, and says so.
                slot.restart_at = None
                effects += self._reword(slot) or [Publish(slot.slotno)]
            elif launches < MAX_LAUNCHES_PER_TICK:
                launches += 1
                effects += self._fire(slot, Event.LAUNCH, Facts(now, timeout=self._start_timeout_of(slot)))
        return effects + self._stop_those_held(now)

    def next_deadline(self) -> float | None:
        """Return when tick() has something to do: an instant that may lie in the past, or None for never."""
        self._bring_agenda_up_to_date()
        return self._agenda.earliest()

    def _take_due(self, now: float) -> list[Slot]:
        """Return the slots whose deadline has passed, in their order; each is looked at again after this."""
        self._bring_agenda_up_to_date()
        return [self.slots[slotno] for slotno in self._agenda.take_due(now)]

    def _bring_agenda_up_to_date(self) -> None:
        if self._has_groups:
            self._agenda.changed_all()
        if self._agenda.is_all_changed:
            self._has_groups = any(slot.reinitialisation for slot in self.slots)
            going = self._going()
            slots = (s for s in self.slots if s.state not in WAITS_FOR_START or s.reinitialisation not in going)
            self._agenda.set_all({slot.slotno: self._deadline_of(slot) for slot in slots})
        else:
            for slotno in self._agenda.take_changed():
                self._agenda.set(slotno, self._deadline_of(self.slots[slotno]))

    def _deadline_of(self, slot: Slot) -> float | None:
        if slot.state is SlotState.STARTED:
            overlap_at = None if slot.run is None else slot.run.at
            return min((at for at in (slot.stuck_at, slot.recycle_at, overlap_at, slot.kill_at) if at is not None), default=None)
        if slot.state not in WAITS_FOR_START:
            return slot.kill_at
        if slot.restart_at is not None:
            return slot.restart_at
        if not slot.registration.after:
            return None if self._is_held_back(slot) else self._now
        awaited = self._awaited_by(slot)
        # Whom it waits for changes when others come and go, and its reason with it.
        return None if awaited and slot.reason == reasons.join(slot.cause, awaited) else self._now

    # -- inner steps -------------------------------------------------------------------------

    def _find(self, slotno: int, generation: int, attempt: int | None = None) -> Slot | None:
        """Return the slot if it still holds this registration, and is at this launch of it."""
        slot = self.slots[slotno] if 0 <= slotno < len(self.slots) else None
        if slot is None or slot.state is SlotState.FREE or slot.generation != generation:
            return None
        return slot if attempt is None or slot.attempt == attempt else None

    def _fire(self, slot: Slot, event: Event, facts: Facts) -> list[Effect]:
        """Do what the table says; a rejected event changes nothing."""
        found = look_up(slot.state, event)
        if isinstance(found, Rejection):
            return [_rejection(slot, event, found)]
        worker = slot.worker
        effects = ACTIONS[found.action](slot, facts)
        if worker is not None and found.next_state is SlotState.FREE:
            self._order.ended(worker, facts.last_exit, facts.reason)
        slot.state = found.next_state
        if found.next_state is SlotState.FREE:
            self._first_free = min(self._first_free, slot.slotno)
        self._changed(slot, facts.now)
        return effects

    def _changed(self, slot: Slot, now: float) -> None:
        """Look at this slot's deadline again, and at those that come after it."""
        self._now = max(self._now, now)
        self._agenda.changed(slot.slotno)
        for slotno in self._order.note(slot):
            self._agenda.changed(slotno)

    def _all_changed(self, now: float) -> None:
        """Look at every slot's deadline again."""
        self._now = max(self._now, now)
        self._agenda.changed_all()

    def _wish(self, slot: Slot, intent: Intent, cause: str, now: float, *, is_immediate: bool = False) -> Facts:
        """Return the facts of a wish; the reason is the last word on a slot that has no process."""
        own = slot.registration.stop_timeout
        timeout = QUIT_TIMEOUT if is_immediate else self._shutdown_timeout if own is None else own
        return Facts(now, cause, reasons.without_process(slot, intent, cause), intent, timeout=timeout)

    def _overdue(self, slot: Slot, now: float) -> list[Effect]:
        if slot.state is SlotState.TERMINATING and slot.pid is None:
            return self._never_born(slot, f"its birth was not answered within {reasons.seconds(ANSWER_TIMEOUT)}", now)
        timeout = self._start_timeout_of(slot)
        if slot.state is SlotState.STARTED:
            own = slot.registration.stop_timeout
            grace = self._shutdown_timeout if own is None else own
            return self._fire(slot, Event.OVERDUE, Facts(now, cause=reasons.was_not_ready(timeout), timeout=grace))
        return self._fire(slot, Event.OVERDUE, Facts(now, cause=reasons.did_not_start(timeout)))

    def _never_born(self, slot: Slot, error: str, now: float) -> list[Effect]:
        """End a launch that no process came of."""
        slot.failure = slot.failure or reasons.failed_to_start(error)
        verdict = self._verdict(slot, None, now)
        level: Level = "WARNING" if slot.intent is None else "DEBUG"
        log = Log(level, f'could not start background worker "{slot.name}": {error}', reasons.sentence(verdict.reason))
        return [*self._conclude(slot, verdict, None, now), log, *self._end_of_smart(now), *self._stop_those_held(now)]

    def _conclude(self, slot: Slot, verdict: Verdict, end: Exit | None, now: float) -> list[Effect]:
        """Carry out what follows the end of a life."""
        facts = Facts(
            now,
            verdict.cause,
            verdict.reason,
            delay=verdict.delay,
            last_exit=end,
            quick_exits=verdict.quick_exits,
            failures=verdict.failures,
            has_failed=verdict.has_failed,
            run=verdict.run,
        )
        return self._fire(slot, Event.GONE_TO_RESTART if verdict.restarts else Event.GONE_FOR_GOOD, facts)

    def _stop_all(self, mode: ShutdownMode, now: float) -> list[Effect]:
        """Tell everybody that the mode tells; those without a process are forgotten in every mode (C38)."""
        event = Event.QUIT if mode is ShutdownMode.IMMEDIATE else Event.STOP
        effects: list[Effect] = []
        self._held = self._order.held() if mode is ShutdownMode.FAST else {}
        for slot in self.slots:
            # One that still waits for its start has nothing to finish, though it has a process.
            is_spared = mode is ShutdownMode.SMART and slot.state in HAS_PROCESS and not slot.is_waiting
            if slot.slotno in self._held:
                effects += self._hold(slot)
            elif slot.state is not SlotState.FREE and not is_spared:
                facts = self._wish(slot, Intent.STOP, reasons.BY_SHUTDOWN, now, is_immediate=event is Event.QUIT)
                effects += self._fire(slot, event, facts)
        return effects

    def _stop_those_held(self, now: float) -> list[Effect]:
        """Go on with a fast shutdown: tell those whose dependents are gone by now."""
        if not self._held or self.shutdown is not ShutdownMode.FAST:
            return []
        before, self._held = self._held, self._order.held()
        effects: list[Effect] = []
        for slot in (self.slots[slotno] for slotno in before):
            if slot.state is not SlotState.STARTED:
                continue
            if slot.slotno not in self._held:
                effects += self._fire(slot, Event.STOP, self._wish(slot, Intent.STOP, reasons.BY_SHUTDOWN, now))
            elif self._held[slot.slotno] != before[slot.slotno]:
                effects += self._hold(slot)
        return effects

    def _hold(self, slot: Slot) -> list[Effect]:
        slot.reason = reasons.held_for(self._held[slot.slotno])
        return [Publish(slot.slotno)]

    def _stop_waiting(self, slot: Slot, now: float) -> list[Effect]:
        """Stop a worker that began to wait when the smart shutdown had begun."""
        return self._fire(slot, Event.STOP, self._wish(slot, Intent.STOP, reasons.BY_SHUTDOWN, now)) if slot.is_waiting else []

    def _awaited(self) -> str:
        """Return whom a smart shutdown waits for, or nothing."""
        names = [f'"{s.name}"' for s in self.slots if s.state is not SlotState.FREE and s.registration.is_never_restarted]
        return reasons.awaited(self._live_handles, names)

    def _end_of_smart(self, now: float) -> list[Effect]:
        """Go on as a fast shutdown once a smart one waits for nobody."""
        if self.shutdown is not ShutdownMode.SMART or self._awaited():
            return []
        self.shutdown = ShutdownMode.FAST
        log = Log("LOG", "smart shutdown waits for nobody any more and goes on as a fast one")
        return [log, *self._stop_all(ShutdownMode.FAST, now)]

    def _going(self) -> set[int]:
        """Return the reinitialisations that have a process left: nobody of theirs starts before the last one is gone."""
        return {slot.reinitialisation for slot in self.slots if slot.reinitialisation and slot.state in HAS_PROCESS}

    def _awaited_by(self, slot: Slot, worker: BackgroundWorker | None = None) -> str:
        """Return what a worker waits for that is not its own time, in words: its phase, or others; empty if nothing.

        Args:
            slot: The worker's.
            worker: What takes its place, if something does.
        """
        worker = worker or slot.registration
        needed = NEEDED_PHASE[worker.bgw_start_time]
        if self.phase < needed:
            return reasons.waits_for_phase(needed, self.phase, self._phase_detail)
        return self._order.unmet(worker)

    def _is_held_back(self, slot: Slot) -> bool:
        return self.phase < reasons.needed_phase(slot)

    def _must_stop(self, slot: Slot) -> bool:
        """Whether the phase that the worker asked to be stopped with is lost, and its process not on its way out already."""
        is_up = slot.state in (SlotState.LAUNCHING, SlotState.STARTED) and not slot.failure
        return is_up and self.shutdown is None and slot.registration.stops_with_phase and self._is_held_back(slot)

    def _verdict(self, slot: Slot, end: Exit | None, now: float) -> Verdict:
        awaited = self._awaited_by(slot, slot.replacement)
        schedule = slot.registration.schedule
        missed = 0 if schedule is None else self._timetable.missed(schedule, slot.launched_at, now)
        run = self._next_run(slot.replacement or slot.registration, now)
        is_over = self.shutdown is not None
        return after_exit(slot, end, now, is_shutting_down=is_over, awaited=awaited, draw=self._draw, run=run, missed=missed)

    def _starts(self, slot: Slot, now: float) -> Facts:
        max_age = slot.registration.max_age
        # Workers that started together are not to be away together.
        recycle_at = 0.0 if max_age is None else now + max_age * (1 + RECYCLE_JITTER * self._draw())
        return Facts(now, timeout=self._start_timeout_of(slot), recycle_at=recycle_at, run=self._next_run(slot.registration, now))

    def _next_run(self, worker: BackgroundWorker, now: float) -> Run | None:
        return None if worker.schedule is None else self._timetable.next_run(worker.schedule, now)

    def _await_run(self, slot: Slot, run: Run, now: float) -> list[Effect]:
        """Have a worker without a process wait for another time than before."""
        self._changed(slot, now)
        slot.run = run
        slot.restart_at = run.at
        slot.reason = reasons.next_run(slot.cause, run.text)
        return [Publish(slot.slotno)]

    def _overlaps(self, slot: Slot, run: Run, now: float) -> list[Effect]:
        """Say once that a time of its schedule came while it still runs; how many it were is told at its end."""
        self._changed(slot, now)
        slot.run = None
        slot.reason = reasons.overlaps(run.text)
        detail = "It is not started a second time. Its next run is at the first time after its end."
        hint = "Give it more time between two runs, or a watchdog if it should have been done."
        log = Log("WARNING", f"{who(slot)} missed its run at {run.text}: it is still running", detail, hint)
        return [Publish(slot.slotno), log]

    def _look_at_running(self, slot: Slot, now: float) -> list[Effect]:
        """Act on the deadlines that a running worker has asked for."""
        worker = slot.registration
        if slot.stuck_at is not None and slot.stuck_at <= now:
            timeout = self._shutdown_timeout if worker.stop_timeout is None else worker.stop_timeout
            return self._fire(slot, Event.STUCK, Facts(now, cause=reasons.stuck(worker.watchdog or 0.0), timeout=timeout))
        if slot.recycle_at is not None and slot.recycle_at <= now:
            return self.recycle(slot.slotno, slot.generation, reasons.too_old(worker.max_age or 0.0), now)
        if slot.run is not None and slot.run.at <= now:
            return self._overlaps(slot, slot.run, now)
        return []

    def recycle(self, slotno: int, generation: int, cause: str, now: float, hint: str = "") -> list[Effect]:
        """Give a running worker a new process, as a restart does; a host that shuts down does not begin one.

        With a hint, what to do about it, the log has it as a warning.
        """
        slot = self._find(slotno, generation)
        if slot is None or slot.state is not SlotState.STARTED:
            return []
        slot.recycle_at = None
        if self.shutdown is not None:
            self._changed(slot, now)
            return []
        log = Log("WARNING" if hint else "LOG", f"{who(slot)} is {cause}", hint=hint)
        return [*self._fire(slot, Event.RESTART, self._wish(slot, Intent.RESTART, cause, now)), log]

    def _start_timeout_of(self, slot: Slot) -> float:
        own = slot.registration.start_timeout
        return self._start_timeout if own is None else own

    def _waiting_reason(self, slot: Slot) -> str:
        """Return what a slot says that only the phase, or others, can hold back."""
        return reasons.join(slot.cause, self._awaited_by(slot) or reasons.STARTS_AT_ONCE)

    def _reword(self, slot: Slot) -> list[Effect]:
        reason = self._waiting_reason(slot)
        if reason == slot.reason:
            return []
        slot.reason = reason
        return [Publish(slot.slotno)]


def _rejection(slot: Slot, event: Event, rejection: Rejection) -> Log:
    """Return the trace that an ignored event leaves; some come from processes that may say anything."""
    return Log("DEBUG", f'ignored event "{event.value}" of {who(slot)}: {rejection.value}')


def _kill_stray(slots: Sequence[Slot], signal: Signal) -> list[Effect]:
    """Kill a process that was born too late, or second.

    Never by a pid that is a worker's: either the same birth was told twice, or the pid has been recycled.
    """
    if any(slot.pid == signal.pid for slot in slots):
        return []
    return [Log("DEBUG", f"killing process {signal.pid}: its birth is not waited for any more"), signal]


def no_free_slot(slots: Sequence[Slot]) -> NoFreeSlot:
    """Return the refusal in PostgreSQL's words, and who holds the slots."""
    registered = [slot.registration for slot in slots if slot.worker is not None]
    holders = Counter((worker.bgw_type, worker.bgw_library_name) for worker in registered).most_common()
    named = [f"{bgw_type} ({count}{f', {library}' if library else ''})" for (bgw_type, library), count in holders[:NAMED_HOLDERS]]
    if len(holders) > NAMED_HOLDERS:
        named.append(f"others ({sum(count for _, count in holders[NAMED_HOLDERS:])})")
    return NoFreeSlot(
        "too many background workers",
        f"Up to {len(slots)} background workers can be registered with the current settings."
        f" The slots are held by {', '.join(named) or 'nobody'}.",
        'Consider increasing the configuration parameter "max_worker_processes".',
    )
