"""A simple model of the slot machine, written from conformance.md and design section 8 and not from the machine's table.

It knows registrations and lives. For every call it predicts exactly who is launched, signalled,
called off, started and forgotten; ``test_slot_machine`` plays histories and compares. It imports
the vocabulary of the machine and none of its rules.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bgworker._core.scope import Segment
from bgworker._core.states import Phase, ShutdownMode
from bgworker._spec import BGW_NEVER_RESTART, BackgroundWorker, BgWorkerStartTime

SLOTS = 4
START_TIMEOUT, SHUTDOWN_TIMEOUT = 20.0, 3.0
TERM, QUIT, KILL = 15, 3, 9
TRAP = 5
STOP_SIGNALS = {"TERM": 15, "USR1": 10}
#: The waits of the crash-loop guard, by the number of quick exits in a row; the last one stays.
GUARD = [0, 0, 0, 0, 0.1, 0.2, 0.4, 0.8, 1.0]
PHASE_NEEDED = dict(zip(BgWorkerStartTime, Phase, strict=True))
STRENGTH = [None, "restart", "stop", "forget"]

#: Slot, generation and attempt of a launch.
Key = tuple[int, int, int]


@dataclass
class Life:
    """One launch and the process that came of it."""

    attempt: int
    launched_at: float
    deadline: float | None
    pid: int | None = None
    announced: bool = False
    started_at: float | None = None
    failed: bool = False
    #: While it runs: when its watchdog and its max_age are over.
    stuck_at: float | None = None
    recycle_at: float | None = None
    #: The watchdog has ended it, or its start timeout, because it was not ready.
    stuck: bool = False
    said_ready: bool = False
    #: Said that it waits for something outside: no deadline of the start runs any more.
    waits: bool = False
    #: Was asked to go in any way.
    told: bool = False
    wish: str | None = None
    #: What its process may have mapped.
    segments: set[Segment] = field(default_factory=set)
    #: The crash that it is ended by.
    ended_by: int = 0

    @property
    def runs(self) -> bool:
        """Whether its function was called and nobody told it to go."""
        return self.started_at is not None and not self.told

    @property
    def may_wait(self) -> bool:
        """Whether a singleton can say now that it waits."""
        return self.pid is not None and not self.told and self.started_at is None and not self.failed

    @property
    def stands_by(self) -> bool:
        """Whether its process waits for its start and nobody told it to go."""
        return self.waits and not self.told and self.started_at is None


@dataclass
class Registration:
    """One generation of one slot."""

    slotno: int
    generation: int
    worker: BackgroundWorker
    ready_at: float
    life: Life | None = None
    attempts: int = 0
    quick: int = 0
    #: Failures in a row.
    failures: int = 0
    ever_started: bool = False
    #: The crash that its last life went down with.
    down_with: int = 0
    replacement: BackgroundWorker | None = None

    @property
    def never(self) -> bool:
        """Whether the worker has one life only."""
        return self.worker.bgw_restart_time == BGW_NEVER_RESTART

    def is_done(self, status: int | None, life: Life) -> bool:
        """Whether a process that nobody told to go ended well."""
        if life.stuck:
            return False
        codes = {0, *self.worker.success_exit_codes}
        return life.started_at is not None and status in {code << 8 for code in codes}

    @property
    def key(self) -> tuple[int, int]:
        """What a handle holds."""
        return (self.slotno, self.generation)


class SlotModel:
    """What is true of the slots, and what the current call must bring about."""

    #: C31's scope: a crash takes everybody down, or nobody else.
    cluster = False

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.phase = Phase.STARTING
        self.shutdown: ShutdownMode | None = None
        self.handles = 0
        self.registrations: dict[int, Registration] = {}
        #: Handles whose registration is over, or that never were one.
        self.past: list[tuple[int, int]] = [(0, 0), (SLOTS, 1), (-1, 1)]
        # Expected of the current call.
        self.signals: list[tuple[int, int]] = []
        self.abandoned: list[Key] = []
        self.launched: list[Key] = []
        self.started: list[int] = []
        #: Pid, whether the exit was requested, whether it was a crash.
        self.exited: list[tuple[int | None, bool, bool]] = []
        #: Slot, generation, and whether the worker failed for good.
        self.forgotten: list[tuple[int, int, bool]] = []
        #: Whether anybody else went down, how many were told now, and the segments that are lost.
        self.reinitialised: list[tuple[int, frozenset[Segment]]] = []
        self.generation_of = dict.fromkeys("abc", 1)
        self.crashes = 0
        #: Whether the last registration of a name ended with success that nobody asked for.
        self.succeeded: dict[str, bool] = {}

    def is_met(self, name: str, condition: str) -> bool:
        """Whether what somebody comes after is there."""
        bearers = [r for r in self.registrations.values() if r.worker.bgw_name == name]
        if not bearers:
            return self.succeeded.get(name, False)
        return all(
            {"started": r.ever_started, "ready": bool(r.life and r.life.runs and self.is_ready(r)), "finished": False}[condition]
            for r in bearers
        )

    def is_ready(self, r: Registration) -> bool:
        """Whether a worker that runs has said all that others wait for."""
        return r.worker.ready == "started" or bool(r.life and r.life.said_ready)

    def is_awaiting(self, r: Registration) -> bool:
        """Whether somebody whom this worker comes after is not there yet."""
        return not all(self.is_met(*entry.rsplit(":", 1)) for entry in r.worker.after)

    def later(self, r: Registration) -> list[Registration]:
        """Return who is to be gone before this worker is told in a fast shutdown; those that got SIGKILL are as good as gone."""
        entries = {f"{r.worker.bgw_name}:{condition}" for condition in ("started", "ready")}
        alive = [o for o in self.registrations.values() if o.life and not (o.life.told and o.life.deadline is None)]
        return [o for o in alive if entries & set(o.worker.after)]

    def stop_in_order(self) -> None:
        """A fast shutdown tells everybody whom nobody needs any more; what does not run has nothing to finish."""
        held = [r.key for r in self.registrations.values() if r.life and r.life.runs and self.later(r)]
        for r in list(self.registrations.values()):
            if r.key not in held:
                self.tell(r, "stop")

    def go_on(self) -> None:
        """Somebody may have been waited for."""
        if self.shutdown is ShutdownMode.FAST:
            ready = [r for r in self.registrations.values() if r.life and r.life.runs and not self.later(r)]
            for r in ready:
                self.tell(r, "stop")

    def forget(self, r: Registration, failed: bool = False, success: bool = False) -> None:
        """The registration is over."""
        self.succeeded[r.worker.bgw_name] = success
        del self.registrations[r.slotno]
        self.past.append(r.key)
        self.forgotten.append((*r.key, failed))

    def tell(self, r: Registration, wish: str, signum: int = TERM) -> None:
        """Somebody wants a registration's process to go."""
        life = r.life
        if life is None:
            if wish == "restart":
                if r.attempts:
                    r.ready_at, r.quick, r.failures = self.now, 0, 0
            else:
                self.forget(r)
            return
        if STRENGTH.index(wish) > STRENGTH.index(life.wish):
            life.wish = wish
        patience = 5.0 if signum == QUIT else SHUTDOWN_TIMEOUT if r.worker.stop_timeout is None else r.worker.stop_timeout
        if not life.told:
            life.told = True
            if life.pid is None:
                self.abandoned.append((*r.key, life.attempt))
                life.deadline = self.now + 5.0
            else:
                asks = signum == TERM and life.started_at is not None
                self.signals.append((life.pid, STOP_SIGNALS[r.worker.stop_signal] if asks else signum))
                life.deadline = self.now + patience
        elif signum == QUIT and life.pid is not None and life.deadline is not None:
            self.signals.append((life.pid, QUIT))
            life.deadline = min(life.deadline, self.now + patience)

    def end(self, r: Registration, status: int | None) -> None:
        """A life is over; None: there never was a process."""
        life = r.life
        assert life is not None
        r.life = None
        r.down_with = life.ended_by
        rule_decides = life.wish is None
        done = rule_decides and r.is_done(status, life)
        crashed = rule_decides and not done and not life.stuck and life.started_at is not None and status != 1 << 8
        if status is not None:
            self.exited.append((life.pid, not rule_decides, crashed))
        took_down = self.crash(r, life) if crashed else []
        began = life.launched_at if life.started_at is None else life.started_at
        quick = r.quick + 1 if self.now - began < 1 else 0
        if life.wish in ("stop", "forget") or self.shutdown is not None:
            # With the host, or with another's crash: the latter is a failure, and so is the end of one who has no other life.
            taken_down = life.wish == "stop" and bool(life.ended_by) and self.shutdown is None
            self.forget(r, taken_down or (rule_decides and r.never and not done), done)
        elif life.wish == "restart":
            r.quick = quick if life.ended_by else 0
            r.failures = r.failures if life.ended_by else 0
            r.ready_at = self.now + GUARD[min(r.quick, 8)]
        elif r.never or (done and r.worker.restart_on == "crash"):
            self.forget(r, not done, done)
        else:
            interval = 0.0 if crashed else r.worker.bgw_restart_time
            r.failures = 0 if done else r.failures + 1
            backoff = r.worker.restart_backoff
            if backoff and life.started_at is not None and self.now - life.started_at >= backoff["healthy_after"] and not done:
                r.failures = 1
            if backoff and r.failures > 1:
                first = max(r.worker.bgw_restart_time, 1.0)
                interval = min(first * backoff["factor"] ** (r.failures - 1), backoff["ceiling"])
            interval = max(interval, 1.0) if status is None else interval
            r.quick = quick
            r.ready_at = self.now + (max(interval, GUARD[min(r.quick, 8)]) if interval < 1 else interval)
        if r.replacement is not None:
            r.worker, r.replacement = r.replacement, None
        for other in took_down:
            self.tell(other, "stop" if other.never else "restart", QUIT)
        self.end_of_smart()
        self.go_on()

    def crash(self, r: Registration, life: Life) -> list[Registration]:
        """Return who must be told because of a crash (C31), everybody of it under one number."""
        others = [(o, o.life) for o in self.registrations.values() if o.life is not None]
        scope = set() if not self.cluster else {o.slotno for o, _ in others}
        lost = set(life.segments)
        for _ in range(SLOTS):
            scope |= {o.slotno for o, theirs in others if theirs.segments & lost}
            lost |= {s for o, theirs in others if o.slotno in scope for s in theirs.segments}
        for name, generation in lost:
            self.generation_of[name] = max(self.generation_of[name], generation + 1)
        down = [(o, theirs) for o, theirs in others if o.slotno in scope]
        told = [o for o, theirs in down if not theirs.ended_by]
        if down or lost:
            self.reinitialised.append((len(told), frozenset(lost)))
        if down:
            self.crashes += 1
            earlier = {theirs.ended_by for _, theirs in down} - {0}
            for o in self.registrations.values():
                if o.life is None:
                    o.down_with = self.crashes if o.down_with in earlier else o.down_with
            r.down_with = self.crashes
            for _, theirs in others:
                if theirs.ended_by in earlier:
                    theirs.ended_by = self.crashes
            for _, theirs in down:
                theirs.ended_by = self.crashes
        return told

    def is_blocked(self, r: Registration) -> bool:
        """Whether somebody of the crash that ended its last life is still there."""
        return r.down_with != 0 and any(o.life and o.life.ended_by == r.down_with for o in self.registrations.values())

    def end_of_smart(self) -> None:
        """Smart becomes fast when neither handles nor workers that never restart are left."""
        waits = self.handles or any(r.never for r in self.registrations.values())
        if self.shutdown is ShutdownMode.SMART and not waits:
            self.shutdown = ShutdownMode.FAST
            self.stop_in_order()

    def lose_phase(self) -> None:
        """Who asked to be stopped with its phase is, unless its process is leaving already or everybody is about to."""
        for r in list(self.registrations.values()):
            is_up = r.life is not None and not r.life.told and not r.life.failed
            is_lost = self.phase < PHASE_NEEDED[r.worker.bgw_start_time]
            if is_up and is_lost and r.worker.stop_when == "phase_lost" and self.shutdown is None:
                self.tell(r, "restart")

    def overdue(self) -> None:
        """What a turn does to lives whose deadline has passed."""
        for r in list(self.registrations.values()):
            life = r.life
            if life is not None and life.started_at is not None and not life.told:
                self.look_at_running(r, life)
                continue
            if life is None or life.deadline is None or life.deadline > self.now:
                continue
            if life.pid is not None:
                self.kill(life)
            elif life.told:
                self.end(r, None)
            else:
                self.abandoned.append((*r.key, life.attempt))
                life.told, life.deadline = True, self.now + 5.0

    def look_at_running(self, r: Registration, life: Life) -> None:
        """What a turn does to a worker that hangs, or is old."""
        assert life.pid is not None
        if life.deadline is not None and life.deadline <= self.now:
            life.told = life.stuck = True
            self.signals.append((life.pid, STOP_SIGNALS[r.worker.stop_signal]))
            life.deadline = self.now + (SHUTDOWN_TIMEOUT if r.worker.stop_timeout is None else r.worker.stop_timeout)
        elif life.stuck_at is not None and life.stuck_at <= self.now:
            life.told = life.stuck = True
            self.signals += [(life.pid, TRAP), (life.pid, STOP_SIGNALS[r.worker.stop_signal])]
            life.deadline = self.now + (SHUTDOWN_TIMEOUT if r.worker.stop_timeout is None else r.worker.stop_timeout)
        elif life.recycle_at is not None and life.recycle_at <= self.now:
            life.recycle_at = None
            if self.shutdown is None:
                self.tell(r, "restart")

    def due(self) -> list[Registration]:
        """Return who must be launched now."""
        return [
            r
            for r in self.registrations.values()
            if r.life is None
            and r.ready_at <= self.now
            and not self.is_blocked(r)
            and self.phase >= PHASE_NEEDED[r.worker.bgw_start_time]
            and not self.is_awaiting(r)
            and self.shutdown is None
        ]

    def pick(self, pick: int) -> Registration:
        """Return some registration."""
        live = list(self.registrations.values())
        return live[pick % len(live)]

    def life_of(self, key: Key) -> tuple[Registration | None, Life | None]:
        """Return registration and life that a birth or process belongs to, if they are still the current ones."""
        r = self.registrations.get(key[0])
        if r is None or r.generation != key[1] or r.life is None or r.life.attempt != key[2]:
            return None, None
        return r, r.life

    def start(self, r: Registration, life: Life) -> None:
        """The worker has its pid and has said that it started."""
        assert life.pid is not None
        patience = START_TIMEOUT if r.worker.start_timeout is None else r.worker.start_timeout
        deadline = self.now + patience if life.deadline is None else life.deadline
        life.started_at, life.failed = self.now, False
        life.deadline = None if self.is_ready(r) else deadline
        life.stuck_at = None if r.worker.watchdog is None else self.now + 1.25 * r.worker.watchdog
        life.recycle_at = None if r.worker.max_age is None else self.now + r.worker.max_age
        r.ever_started = True
        self.started.append(life.pid)

    def kill(self, life: Life) -> None:
        """A process gets SIGKILL; there is nothing to wait for but its end."""
        assert life.pid is not None
        self.signals.append((life.pid, KILL))
        life.told, life.deadline = True, None

    def launch_due(self) -> None:
        """What a turn does for those who wait."""
        for r in self.due():
            r.attempts += 1
            r.down_with = 0
            patience = START_TIMEOUT if r.worker.start_timeout is None else r.worker.start_timeout
            r.life = Life(r.attempts, self.now, self.now + patience)
            self.launched.append((*r.key, r.attempts))
