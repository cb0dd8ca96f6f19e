"""The slot machine against ``slot_model`` under random histories (C07, C14, C29 to C39).

Around both stands a small kernel that holds births on their way and processes: loaders answer
late, twice or not at all, workers speak out of turn, processes end at any moment.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import Phase as Stage
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bgworker._core.effects import Abandon, Effect, Exited, Forgotten, Launch, Log, Publish, Reinitialise, Signal, Started
from bgworker._core.scope import CrashScope, Segment
from bgworker._core.slots import Slot, SlotMachine
from bgworker._core.states import Origin, Phase, ShutdownMode, SlotState
from bgworker._spec import BGW_NEVER_RESTART, STOP_WHEN, BackgroundWorker, BgWorkerStartTime, sanity_check
from bgworker._supervision import RESTART_ON
from bgworker.errors import NoFreeSlot, RegistrationError, SharedMemoryError

from .slot_model import KILL, QUIT, SHUTDOWN_TIMEOUT, SLOTS, START_TIMEOUT, STOP_SIGNALS, TERM, TRAP, Key, Registration, SlotModel


def a_worker(
    name: str,
    restart: float,
    start: BgWorkerStartTime,
    stop: float | None,
    stop_when: str,
    singleton: bool,
    rules: dict[str, Any],
    after: list[str],
) -> BackgroundWorker:
    """Return a registration as the host hands it to the machine."""
    if restart == BGW_NEVER_RESTART:
        rules = {key: value for key, value in rules.items() if key not in ("restart_on", "restart_backoff")}
    worker = BackgroundWorker(
        bgw_name=name,
        bgw_library_name="l",
        bgw_function_name="f",
        bgw_restart_time=restart,
        bgw_start_time=start,
        stop_timeout=stop,
        # The one combination that no registration has.
        stop_when="never" if start is BgWorkerStartTime.BgWorkerStart_PostmasterStart else stop_when,
        # Names that come before its own, so that there is no circle.
        after=tuple(entry for entry in after if entry < name),
        **rules,
    )
    # The flag that a singleton needs would keep it from starting without a database.
    return replace(sanity_check(worker, is_dynamic=True), singleton=singleton)


#: Mostly the chapter's rules alone.
supervision = st.just({}) | st.fixed_dictionaries(
    {},
    optional={
        "restart_on": st.sampled_from(RESTART_ON),
        "restart_backoff": st.just({"factor": 3.0, "ceiling": 20.0, "jitter": 0.0, "healthy_after": 0.5}),
        "success_exit_codes": st.just((2, 255)),
        "stop_signal": st.just("USR1"),
        "start_timeout": st.sampled_from([0.75, 30.0]),
        "watchdog": st.just(2.0),
        "max_age": st.just(3.0),
        "ready": st.just("notify"),
    },
)
workers = st.builds(
    a_worker,
    st.sampled_from("abcd"),
    st.sampled_from([BGW_NEVER_RESTART, BGW_NEVER_RESTART, 0.0, 0.0, 0.5, 4.0]),
    # Mostly workers that need no database, so that a history is not spent waiting.
    st.sampled_from([BgWorkerStartTime.BgWorkerStart_PostmasterStart] * 3 + list(BgWorkerStartTime)),
    st.sampled_from([None, 0.5, 9.0]),
    st.sampled_from(STOP_WHEN),
    st.booleans(),
    supervision,
    # Mostly nobody, so that histories do not spend their time waiting.
    st.just([]) | st.lists(st.sampled_from(["a", "a:ready", "a:finished", "b", "b:ready", "c:started"]), max_size=2),
)
picks = st.integers(0, 10_000)
#: Mostly 0 and 1: a code above 1 or a signal is a crash.
statuses = st.sampled_from([0, 0, 1 << 8, 1 << 8, 1 << 8, 1 << 8, 2 << 8, 255 << 8, 9, 15])


class SlotHistories(SlotModel, RuleBasedStateMachine):
    """Random histories of one host: the model, the machine, and a kernel that holds births and processes."""

    def __init__(self) -> None:
        super().__init__()
        scope = CrashScope.CLUSTER if self.cluster else CrashScope.ATTACHED
        self.machine = self.new_machine(scope)
        self.generations = [0] * SLOTS
        # The kernel: births that nobody answered yet, and processes, each with slot, generation and attempt.
        self.births: list[Key] = []
        self.processes: dict[int, Key] = {}
        self.killed: set[int] = set()
        self.calls = 0
        self.last_pid = 1000
        self.registered = self.forgotten_ever = 0

    # -- comparing ---------------------------------------------------------------------------

    def check(self, effects: list[Effect]) -> None:
        """Compare the effects of a call with what the model expects of it, then forget the expectation."""

        def of(kind: type[Any]) -> list[Any]:
            return [effect for effect in effects if isinstance(effect, kind)]

        self.calls += 1
        for signal in of(Signal):
            owner = self.processes.get(signal.pid)
            assert owner is not None, "a signal to a process that is gone"
            assert owner[:2] == (signal.slotno, signal.generation), "a signal to another slot's process"
            assert signal.whole_session is (signal.signum not in (TRAP, *STOP_SIGNALS.values()))
            if signal.signum == KILL:
                self.killed.add(signal.pid)
        assert sorted((s.pid, s.signum) for s in of(Signal)) == sorted(self.signals)
        assert sorted((a.slotno, a.generation, a.attempt) for a in of(Abandon)) == sorted(self.abandoned)
        assert sorted((la.slotno, la.generation, la.attempt) for la in of(Launch)) == sorted(self.launched)
        assert [s.pid for s in of(Started)] == self.started
        assert [(e.pid, e.exit.was_requested, e.exit.is_crash) for e in of(Exited)] == self.exited
        assert sorted((f.slotno, f.generation, f.has_failed) for f in of(Forgotten)) == sorted(self.forgotten)
        assert all(f.reason for f in of(Forgotten))
        assert [(e.others, e.segments) for e in of(Reinitialise)] == self.reinitialised
        lines = [line for line in of(Log) if "because of the crash" in line.message]
        assert len(lines) == len([told for told, _ in self.reinitialised if told]), "one log line for each reinitialisation"
        touched = {e.slotno for e in effects if not isinstance(e, Log | Publish | Reinitialise)}
        # A process that nobody waits for is no part of its slot any more.
        strays = set(self.processes) - {r.life.pid for r in self.registrations.values() if r.life}
        published = {p.slotno for p in of(Publish)} | {s.slotno for s in of(Signal) if s.pid in strays}
        assert touched <= published, "a change that nobody else would see"
        self.births += [(la.slotno, la.generation, la.attempt) for la in of(Launch)]
        self.forgotten_ever += len(self.forgotten)
        for expected in (
            self.signals,
            self.abandoned,
            self.launched,
            self.started,
            self.exited,
            self.forgotten,
            self.reinitialised,
        ):
            expected.clear()

    # -- rules: registration -----------------------------------------------------------------

    @rule(worker=workers)
    def register(self, worker: BackgroundWorker) -> None:
        """C14, C33, C39: the lowest free slot and a greater generation, or the right refusal."""
        if self.shutdown is not None or len(self.registrations) == SLOTS:
            with pytest.raises(RegistrationError) as refusal:
                self.machine.register(worker, Origin.DYNAMIC, self.now)
            assert isinstance(refusal.value, NoFreeSlot) is (self.shutdown is None)
            return
        slot, effects = self.machine.register(worker, Origin.DYNAMIC, self.now)
        assert slot.slotno == min(set(range(SLOTS)) - set(self.registrations))
        self.generations[slot.slotno] += 1
        self.succeeded.pop(worker.bgw_name, None)
        self.registrations[slot.slotno] = Registration(slot.slotno, self.generations[slot.slotno], worker, self.now)
        self.registered += 1
        assert slot.generation == self.generations[slot.slotno]
        self.check(effects)

    @precondition(lambda self: self.registrations)
    @rule(pick=picks, worker=workers)
    def replace(self, pick: int, worker: BackgroundWorker) -> None:
        """C29: a changed registration counts as a restart, unless the worker is to be forgotten."""
        r = self.pick(pick)
        worker = replace(worker, bgw_name=r.worker.bgw_name, after=tuple(e for e in worker.after if e < r.worker.bgw_name))
        if self.shutdown is None and not (r.life and r.life.wish == "forget"):
            if r.life is None:
                r.worker = worker
            else:
                r.replacement = worker
            self.tell(r, "restart")
        self.check(self.machine.replace(*r.key, worker, self.now))

    # -- rules: the host ---------------------------------------------------------------------

    @rule()
    def execute_anew(self) -> None:
        """The machine goes through a document into another machine, which knows all that it knew and goes on with the history."""
        carried = json.loads(json.dumps(self.machine.carry()))
        scope = CrashScope.CLUSTER if self.cluster else CrashScope.ATTACHED
        before, self.machine = self.machine, self.new_machine(scope)
        self.machine.resume(carried, self.now)
        assert self.machine.slots == before.slots
        assert self.machine.carry() == before.carry()
        ours, theirs = vars(self.machine._order), vars(before._order)
        assert all(ours[name] == theirs[name] for name in ("_bearers", "_followers", "_ends"))
        free = [slot.slotno for slot in self.machine.slots if slot.state is SlotState.FREE]
        assert self.machine._roster._first_free <= min(free, default=SLOTS)

    @staticmethod
    def new_machine(scope: CrashScope) -> SlotMachine:
        """Return a machine that has seen nothing."""
        return SlotMachine(SLOTS, shutdown_timeout=SHUTDOWN_TIMEOUT, start_timeout=START_TIMEOUT, crash_scope=scope)

    # -- rules: births and processes ---------------------------------------------------------

    # Random words alone hardly ever bring a worker up; without these two most histories would never see one run.
    @rule(starts=st.sampled_from([True, True, False]))
    def bring_everybody_up(self, starts: bool) -> None:
        """The usual way: a turn, and everything that was launched is born and starts, or stops short of it."""
        self.take_turn()
        while self.births:
            self.bear(0, starts)

    @rule(worker=workers)
    def register_and_bring_up(self, worker: BackgroundWorker) -> None:
        """A worker that runs, if there is room for it and the phase allows it."""
        self.register(worker)
        self.bring_everybody_up(True)

    @precondition(lambda self: self.births)
    @rule(pick=picks, starts=st.booleans())
    def bear(self, pick: int, starts: bool) -> None:
        """The loader tells a pid, perhaps long after anybody wanted it; many workers start at once."""
        key = self.births.pop(pick % len(self.births))
        self.last_pid += 1
        pid = self.last_pid
        self.processes[pid] = key
        r, life = self.life_of(key)
        if r is None or life is None:
            self.signals.append((pid, KILL))
        else:
            life.pid = pid
            if life.told:
                self.kill(life)
            elif life.announced:
                self.start(r, life)
            self.go_on()
        self.check(self.machine.born(*key, pid, self.now))
        if starts:
            self.tell_started(key)

    @precondition(lambda self: self.processes)
    @rule(pick=picks)
    def bear_again(self, pick: int) -> None:
        """A birth is answered twice: with the same pid nothing happens, with another the second process is killed."""
        pid, key = list(self.processes.items())[pick % len(self.processes)]
        _, life = self.life_of(key)
        if life is not None and life.pid is None:
            return  # lost: its launch waits for another birth, and the host tells births apart by their numbers
        if life is not None and life.pid == pid:
            assert self.machine.born(*key, pid, self.now) == []
        self.last_pid += 1
        self.processes[self.last_pid] = key
        self.signals.append((self.last_pid, KILL))
        self.check(self.machine.born(*key, self.last_pid, self.now))

    @precondition(lambda self: self.births and self.registrations)
    @rule(pick=picks, other=picks)
    def bear_late_with_a_recycled_pid(self, pick: int, other: int) -> None:
        """A late line names a pid that is another worker's by now: it must not be signalled."""
        key = self.births[pick % len(self.births)]
        owner = self.pick(other).life
        if self.life_of(key)[1] is None and owner is not None and owner.pid is not None:
            self.births.remove(key)
            self.check(self.machine.born(*key, owner.pid, self.now))

    @precondition(lambda self: self.births)
    @rule(pick=picks)
    def fail_birth(self, pick: int) -> None:
        """The loader tells that no process came of a birth."""
        key = self.births.pop(pick % len(self.births))
        r, _ = self.life_of(key)
        if r is not None:
            self.end(r, None)
        self.check(self.machine.birth_failed(*key, "no memory", self.now))

    @precondition(lambda self: self.processes)
    @rule(pick=picks)
    def fail_birth_after_all(self, pick: int) -> None:
        """A birth is called a failure though its process is there: useless if it has not started, nonsense if it has."""
        key = list(self.processes.values())[pick % len(self.processes)]
        _, life = self.life_of(key)
        # The news names a launch, not a pid: it concerns the process that counts, even if a second one was born by mistake.
        if life is not None and life.pid is not None and not life.told and life.started_at is None:
            self.kill(life)
        elif life is not None and life.pid is None:
            # The news would be true: there is no process of this launch but one born by mistake.
            return
        self.check(self.machine.birth_failed(*key, "no channel", self.now))

    @precondition(lambda self: self.processes or self.births)
    @rule(pick=picks)
    def say_started(self, pick: int) -> None:
        """A worker says that it started: first, late, twice, or before its pid is known."""
        keys = [*self.processes.values(), *self.births]
        self.tell_started(keys[pick % len(keys)])

    def tell_started(self, key: Key) -> None:
        """Have the worker of a birth say that it started."""
        r, life = self.life_of(key)
        if r is not None and life is not None and not life.told and life.started_at is None:
            if life.pid is None:
                life.announced = True
            else:
                self.start(r, life)
        self.check(self.machine.started(*key, self.now))

    @precondition(lambda self: self.processes or self.births)
    @rule(pick=picks)
    def say_start_failed(self, pick: int) -> None:
        """A worker says that it cannot start."""
        keys = [*self.processes.values(), *self.births]
        key = keys[pick % len(keys)]
        _, life = self.life_of(key)
        if life is not None and not life.told and life.started_at is None and not life.failed:
            life.failed, life.waits = True, False
            life.deadline = self.now + 5.0 if life.deadline is None else min(life.deadline, self.now + 5.0)
        self.check(self.machine.start_failed(*key, "no function", self.now))

    @precondition(lambda self: self.processes or self.births)
    @rule(pick=picks)
    def say_waits(self, pick: int) -> None:
        """A worker says that it waits before it starts: a singleton may, for as long as it takes, but not in a smart shutdown."""
        keys = [*self.processes.values(), *self.births]
        key = keys[pick % len(keys)]
        r, life = self.life_of(key)
        if r is not None and life is not None and r.worker.singleton and life.may_wait:
            life.waits, life.deadline = True, None
            if self.shutdown is not None:
                self.tell(r, "stop")
        self.check(self.machine.waits(*key, "waits for another", self.now))

    @precondition(lambda self: self.processes)
    @rule(pick=picks)
    def say_ready(self, pick: int) -> None:
        """A worker says that it is ready: also one that has not started, one that is ready already, and one that never is."""
        key = list(self.processes.values())[pick % len(self.processes)]
        r, life = self.life_of(key)
        if r is not None and life is not None and not life.told and r.worker.ready == "notify":
            life.said_ready = True
            if life.started_at is not None:
                life.deadline = None
        self.check(self.machine.ready(*key, self.now))

    @precondition(lambda self: self.processes)
    @rule(pick=picks, is_idle=st.booleans())
    def say_moves(self, pick: int, is_idle: bool) -> None:
        """A worker says that it moves, or waits: it counts for one that runs and has a watchdog."""
        key = list(self.processes.values())[pick % len(self.processes)]
        r, life = self.life_of(key)
        if r is not None and life is not None and life.started_at is not None and not life.told and r.worker.watchdog:
            life.stuck_at = None if is_idle else self.now + 1.25 * r.worker.watchdog
        self.check(self.machine.moved(*key, is_idle, self.now))

    @precondition(lambda self: self.processes)
    @rule(pick=picks, name=st.sampled_from("abc"))
    def attach(self, pick: int, name: str) -> None:
        """C31: a worker asks for a segment; only one that runs, and was not told to go, gets it."""
        pid, key = list(self.processes.items())[pick % len(self.processes)]
        _, life = self.life_of(key)
        if life is not None and life.pid != pid:
            return  # the host serves nobody but the slot's own process
        segment = Segment(name, self.generation_of[name])
        if life is None or life.told or life.started_at is None:
            with pytest.raises(SharedMemoryError):
                self.machine.attach(*key, segment, self.now)
            return
        life.segments.add(segment)
        self.check(self.machine.attach(*key, segment, self.now))

    @precondition(lambda self: len(self.processes) > 1)
    @rule()
    def attach_in_a_chain(self) -> None:
        """C31: each shares a segment with the next alone, so that a crash reaches those who share nothing with the crashed."""
        for pick in range(len(self.processes)):
            for name in "abc"[max(pick - 1, 0) : pick + 1]:
                self.attach(pick, name)

    @precondition(lambda self: self.processes)
    @rule(pick=picks, status=statuses)
    def exit(self, pick: int, status: int) -> None:
        """A process ends, in any way, at any time."""
        pid = list(self.processes)[pick % len(self.processes)]
        key = self.processes.pop(pid)
        r, life = self.life_of(key)
        if r is not None and life is not None:
            if life.pid != pid:
                # The second process of a birth answered twice; the host knows which pid is the slot's.
                return
            self.end(r, status)
        self.check(self.machine.exited(*key, status, self.now, "last line"))

    @precondition(lambda self: self.processes)
    @rule(pick=picks)
    def lose(self, pick: int) -> None:
        """A process is killed before it knows what it is to be: its launch gets another, unless nobody wants it any more."""
        pid = list(self.processes)[pick % len(self.processes)]
        r, life = self.life_of(self.processes[pid])
        if life is not None and (life.pid != pid or life.started_at is not None or life.failed or life.waits):
            return  # it has spoken, so it knew
        key = self.processes.pop(pid)
        if r is not None and life is not None:
            if life.told or self.shutdown is not None:
                self.end(r, KILL)
            else:
                life.pid = None
                self.launched.append(key)
        self.check(self.machine.lost(*key, KILL, self.now))

    @precondition(lambda self: self.processes)
    @rule(pick=picks, times=st.integers(2, 9), status=statuses, starts=st.booleans())
    def fail_again_and_again(self, pick: int, times: int, status: int, starts: bool) -> None:
        """C09: a worker that ends as soon as it runs, or before, for as long as it is brought back."""
        slotno = list(self.processes.values())[pick % len(self.processes)][0]
        for _ in range(times):
            pids = [pid for pid, key in self.processes.items() if key[0] == slotno]
            if pids:
                self.exit(list(self.processes).index(pids[0]), status)
            self.sleep_until_the_deadline()
            self.bring_everybody_up(starts)

    # -- rules: wishes -----------------------------------------------------------------------

    @precondition(lambda self: self.registrations)
    @rule(pick=picks, by_operator=st.booleans())
    def terminate(self, pick: int, by_operator: bool) -> None:
        """C35: whatever the state, the worker is told to go, or is gone."""
        r = self.pick(pick)
        self.tell(r, "forget")
        self.check(self.machine.terminate(*r.key, self.now, by_operator=by_operator))

    @precondition(lambda self: self.registrations)
    @rule(pick=picks, is_start=st.booleans())
    def restart_or_start(self, pick: int, is_start: bool) -> None:
        """A restart is a wish that everything else beats; a start matters only between two lives."""
        r = self.pick(pick)
        if self.shutdown is None and not (is_start and r.life):
            self.tell(r, "restart")
        self.check((self.machine.start if is_start else self.machine.restart)(*r.key, self.now))

    @rule(pick=picks, slotno=st.integers(0, SLOTS - 1), generation=st.integers(0, 5), attempt=st.integers(0, 9))
    def speak_of_the_past(self, pick: int, slotno: int, generation: int, attempt: int) -> None:
        """C34: a handle whose registration is over moves nobody, and neither does news of a launch that is over."""
        for wish in ("terminate", "restart", "start"):
            assert getattr(self.machine, wish)(*self.past[pick % len(self.past)], self.now) == []
        key = (slotno, generation, attempt)
        if self.life_of(key)[1] is None:
            self.check(self.machine.started(*key, self.now))
            self.check(self.machine.start_failed(*key, "x", self.now))
            self.check(self.machine.waits(*key, "x", self.now))
            self.check(self.machine.birth_failed(*key, "x", self.now))
            self.check(self.machine.exited(*key, 0, self.now))

    # -- rules: the host ---------------------------------------------------------------------

    @rule(phase=st.sampled_from([*Phase, Phase.RECOVERY_FINISHED]), detail=st.sampled_from(["", "connection refused"]))
    def set_phase(self, phase: Phase, detail: str) -> None:
        """C07: a phase by itself launches nobody, and stops those alone that asked to be stopped with theirs."""
        self.phase = phase
        self.lose_phase()
        self.check(self.machine.set_phase(phase, detail, self.now))

    @precondition(lambda self: self.calls > 30)
    @rule(count=st.integers(0, 2))
    def set_live_handles(self, count: int) -> None:
        """C39: connections come and go with their handles."""
        self.handles = count
        self.end_of_smart()
        self.check(self.machine.set_live_handles(count, self.now))

    # Late, or most of each history would be spent after its shutdown.
    @precondition(lambda self: self.calls > 40)
    @rule(mode=st.sampled_from(ShutdownMode))
    def begin_shutdown(self, mode: ShutdownMode) -> None:
        """C38, C39: a stricter mode than the one in force, or nothing."""
        if self.shutdown is None or mode > self.shutdown:
            self.shutdown = mode
            if mode is ShutdownMode.FAST:
                self.stop_in_order()
            for r in list(self.registrations.values()):
                if mode is ShutdownMode.IMMEDIATE or r.life is None or r.life.stands_by:
                    self.tell(r, "stop", QUIT if mode is ShutdownMode.IMMEDIATE else TERM)
            self.end_of_smart()
        self.check(self.machine.begin_shutdown(mode, self.now))

    @precondition(lambda self: self.calls > 40 and self.shutdown is None)
    @rule(worker=workers, seconds=st.sampled_from([0.25, 3.0, 8.0]))
    def stop_a_chain(self, worker: BackgroundWorker, seconds: float) -> None:
        """C39: those that come after others are gone, or have got SIGKILL, before these are told."""
        for name, after in (("a", ()), ("b", ("a:started",)), ("c", ("b:ready",))):
            self.register_and_bring_up(replace(worker, bgw_name=name, after=after))
        self.begin_shutdown(ShutdownMode.FAST)
        for _ in range(4):
            self.turn(seconds)

    @rule(seconds=st.sampled_from([0.0, 0.0, 0.05, 0.25, 1.0, 3.0, 8.0]))
    def turn(self, seconds: float) -> None:
        """Time passes and the host takes a turn: what is due happens, all of it, and nothing else."""
        self.now += seconds
        self.take_turn()

    @rule()
    def sleep_until_the_deadline(self) -> None:
        """The host wakes when the machine asked for it, and then something is done or becomes known."""
        deadline = self.machine.next_deadline()
        if deadline is not None:
            self.now = max(self.now, deadline)
            self.take_turn()

    def take_turn(self) -> None:
        """Expect all that is due and tick."""
        self.overdue()
        self.launch_due()
        self.go_on()
        self.check(self.machine.tick(self.now))
        for r in self.registrations.values():
            if r.life is None and r.ready_at <= self.now and not self.is_blocked(r) and self.is_awaiting(r):
                assert "waits for" in self.machine.slots[r.slotno].reason, "nobody can see what it waits for"
        deadline = self.machine.next_deadline()
        assert deadline is None or deadline > self.now, "something due was left for later"

    # -- invariants --------------------------------------------------------------------------

    @invariant()
    def slots_are_as_the_model_says(self) -> None:
        """C29 to C38: who is registered, who has a process, who waits until when."""
        for slot in self.machine.slots:
            assert slot.generation == self.generations[slot.slotno]
            r = self.registrations.get(slot.slotno)
            assert (slot.state is SlotState.FREE) is (r is None)
            if r is None:
                assert slot == Slot(slot.slotno, slot.generation), "a free slot remembers its worker"
                continue
            life = r.life
            assert (slot.worker, slot.attempt, slot.quick_exits) == (r.worker, r.attempts, r.quick)
            assert slot.failures == r.failures
            assert slot.has_started_once is r.ever_started
            assert slot.segments == (life.segments if life else set())
            assert slot.reinitialisation == (life.ended_by if life else r.down_with)
            assert slot.terminate_requested is bool(life and life.wish == "forget")
            assert (slot.intent.name.lower() if slot.intent else None) == (life.wish if life else None)
            if life is None:
                expected = SlotState.WAITING_RESTART if r.attempts else SlotState.NOT_YET_STARTED
                if slot.restart_at is not None:
                    assert slot.restart_at == pytest.approx(r.ready_at)
                else:
                    assert r.ready_at <= self.now
                assert (slot.pid, slot.kill_at) == (None, None)
            else:
                started = SlotState.LAUNCHING if life.started_at is None else SlotState.STARTED
                expected = SlotState.TERMINATING if life.told else started
                assert slot.is_waiting is life.stands_by
                assert (slot.pid, slot.started_at, slot.restart_at) == (life.pid, life.started_at, None)
                assert slot.kill_at == life.deadline
                if slot.state is SlotState.STARTED:
                    assert (slot.stuck_at, slot.recycle_at) == (life.stuck_at, life.recycle_at)
            assert slot.state is expected
            is_held = self.shutdown is ShutdownMode.FAST and slot.state is SlotState.STARTED
            is_well = slot.state is SlotState.STARTED and self.is_ready(r) and not is_held
            assert bool(slot.reason) is not is_well, "a reason that is missing, or one too many"

    @invariant()
    def no_slot_has_two_processes(self) -> None:
        """A process that is not its slot's own has been sent SIGKILL, so that it cannot work beside the next."""
        for pid, key in self.processes.items():
            _, life = self.life_of(key)
            assert (life is not None and life.pid == pid) or pid in self.killed

    @invariant()
    def shutdown_is_as_the_model_says(self) -> None:
        """C39: the mode in force, nobody waiting for a launch, drained only when all are gone."""
        assert self.machine.shutdown is self.shutdown
        if self.shutdown is not None:
            assert all(r.life is not None for r in self.registrations.values())
        stopping = self.shutdown in (ShutdownMode.FAST, ShutdownMode.IMMEDIATE)
        assert self.machine.is_drained is (stopping and not self.registrations)

    @invariant()
    def nobody_is_forgotten_twice_or_never(self) -> None:
        """C35: every registration is in a slot or was forgotten exactly once."""
        assert self.registered == len(self.registrations) + self.forgotten_ever

    @invariant()
    def the_host_is_woken_in_time(self) -> None:
        """No deadline of the model lies before the machine's, so that a host that sleeps until then misses nothing."""
        instants = [r.life.deadline for r in self.registrations.values() if r.life and r.life.deadline is not None]
        running = [r.life for r in self.registrations.values() if r.life and r.life.started_at is not None and not r.life.told]
        instants += [at for life in running for at in (life.stuck_at, life.recycle_at) if at is not None]
        instants += [max(r.ready_at, 0) for r in self.registrations.values() if r in self.due()]
        if instants:
            deadline = self.machine.next_deadline()
            assert deadline is not None
            assert deadline <= max(min(instants), self.now) + 1e-6

    def teardown(self) -> None:
        """C39: whatever happened before, an immediate shutdown and a kernel that obeys SIGKILL leave nothing behind."""
        self.begin_shutdown(ShutdownMode.IMMEDIATE)
        for _ in range(3):
            self.now += 10.0
            self.take_turn()
        assert all(r.life and r.life.pid is not None for r in self.registrations.values())
        while self.processes:
            self.exit(0, KILL)
        assert self.machine.is_drained
        assert not self.registrations
        assert self.machine.next_deadline() is None


class ClusterHistories(SlotHistories):
    """The same, where every crash takes everybody down (C31, crash_scope "cluster")."""

    cluster = True


BUDGET = settings(
    max_examples=300,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
    # Without Stage.explain, which takes minutes and has nothing to say about a history.
    phases=[Stage.explicit, Stage.reuse, Stage.generate, Stage.shrink],
)
TestSlotHistories = SlotHistories.TestCase
TestSlotHistories.settings = BUDGET
TestClusterHistories = ClusterHistories.TestCase
TestClusterHistories.settings = settings(BUDGET, max_examples=100)
