"""The actions of the transition table: one small function each.

Each gets the slot, whose state is still the one before, and the facts of the event; it fills
in the other fields and returns what the host is to do. They decide nothing that the table or
``restart`` has decided before. Called by ``roster`` alone; whoever fires an event fills in the facts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bgworker._core import reasons
from bgworker._core.effects import Abandon, Effect, Forgotten, Launch, Log, Publish, Signal, Started
from bgworker._core.exits import Exit
from bgworker._core.record import Slot
from bgworker._core.states import SIGKILL, SIGQUIT, SIGTERM, SIGTRAP, Intent, SlotState
from bgworker._core.table import Action
from bgworker._core.timetable import Run

__all__ = ["ACTIONS", "QUIT_TIMEOUT", "WATCHDOG_SLACK", "Facts", "who"]

#: From SIGQUIT to SIGKILL (C31; PostgreSQL's SIGKILL_CHILDREN_AFTER_SECS in postmaster.c).
QUIT_TIMEOUT: Final = 5.0
#: How long a birth that was called off may stay unanswered before the slot stops waiting for it.
ANSWER_TIMEOUT: Final = 5.0
#: A worker tells of its progress at most four times in each span of its watchdog, so what the host has heard may be that much
#: older than what was.
WATCHDOG_SLACK: Final = 1.25
#: Causes of a termination that overrule others, the greater the lesser.
_LAST_WORDS: Final = {reasons.BY_OPERATOR: 1, reasons.BY_SCALE: 2}


@dataclass(frozen=True, slots=True)
class Facts:
    """What an action may need to know beside the slot; each event fills in what its actions read."""

    now: float
    #: Who asked, or what was learned: the first half of the reason.
    cause: str = ""
    #: The whole reason, where the caller has already worded it.
    reason: str = ""
    intent: Intent | None = None
    pid: int | None = None
    #: Seconds until the slot's next deadline.
    timeout: float = 0.0
    #: Seconds until the next launch.
    delay: float = 0.0
    last_exit: Exit | None = None
    quick_exits: int = 0
    failures: int = 0
    #: The registration ends in a failure.
    has_failed: bool = False
    #: When the life that begins is over; 0 for never.
    recycle_at: float = 0.0
    #: The next time of the worker's schedule.
    run: Run | None = None


def who(slot: Slot) -> str:
    """Return the worker as log lines name it."""
    return f'background worker "{slot.name}"' + (f" (PID {slot.pid})" if slot.pid is not None else "")


def await_start(slot: Slot, facts: Facts) -> list[Effect]:
    """Enter the registration, which already stands in the slot."""
    slot.reason = facts.reason
    slot.run = facts.run
    slot.restart_at = None if facts.run is None else facts.run.at
    return [Publish(slot.slotno), Log("DEBUG", f'registering background worker "{slot.name}"')]


def launch(slot: Slot, facts: Facts) -> list[Effect]:
    """Ask for a process; from here until its end is known the slot holds no other."""
    slot.attempt += 1
    slot.launched_at = facts.now
    slot.restart_at = None
    slot.kill_at = facts.now + facts.timeout
    slot.cause = ""
    slot.reinitialisation = 0
    slot.reason = reasons.launching(slot.attempt, facts.timeout)
    return [
        Publish(slot.slotno),
        Log("DEBUG", f'starting background worker process "{slot.name}"'),
        Launch(slot.slotno, slot.generation, slot.attempt),
    ]


def launch_again(slot: Slot, facts: Facts) -> list[Effect]:
    """The process was lost before it knew what it was to be; the same launch gets another, by the same deadline."""
    log = Log("LOG", f"{who(slot)} is given another process", "The one that was to become it ended before it was told so.")
    slot.pid = None
    return [Publish(slot.slotno), log, Launch(slot.slotno, slot.generation, slot.attempt)]


def note_pid(slot: Slot, facts: Facts) -> list[Effect]:
    """The process is there; it still has to say that it started."""
    slot.pid = facts.pid
    return [Publish(slot.slotno)]


def note_started(slot: Slot, facts: Facts) -> list[Effect]:
    """The worker's function is running: healthy, nothing left to say."""
    assert slot.pid is not None, "started is held back until the pid is known"
    slot.started_at = facts.now
    slot.has_started_once = True
    slot.failure = ""
    if slot.registration.says_when_ready and not slot.has_said_ready:
        # What is left of the start timeout; a singleton's was taken away while it waited.
        slot.kill_at = facts.now + facts.timeout if slot.kill_at is None else slot.kill_at
        slot.reason = reasons.NOT_READY_YET
    else:
        slot.kill_at = None
        slot.reason = ""
    watchdog = slot.registration.watchdog
    slot.stuck_at = None if watchdog is None else facts.now + watchdog * WATCHDOG_SLACK
    slot.recycle_at = None if facts.recycle_at <= 0 else facts.recycle_at
    slot.run = facts.run
    return [Publish(slot.slotno), Started(slot.slotno, slot.generation, slot.pid)]


def note_wait(slot: Slot, facts: Facts) -> list[Effect]:
    """The start is held up from outside, for as long as it takes: nobody's deadline runs meanwhile."""
    slot.kill_at = None
    slot.reason = facts.reason
    return [Publish(slot.slotno), Log("LOG", f"{who(slot)} {facts.reason}")]


def note_ready(slot: Slot, facts: Facts) -> list[Effect]:
    """Others may count on it. What a command says can overtake the news that it was executed; it counts from then on."""
    slot.has_said_ready = True
    if slot.state is SlotState.LAUNCHING:
        return []
    slot.kill_at = None
    # Another one says why it still runs while the host shuts down.
    slot.reason = "" if slot.reason == reasons.NOT_READY_YET else slot.reason
    return [Publish(slot.slotno), Log("DEBUG", f"{who(slot)} is ready")]


def note_failure(slot: Slot, facts: Facts) -> list[Effect]:
    """The worker said why it cannot start. It ends by itself, and soon: the deadline moves nearer, never away."""
    slot.failure = facts.cause
    deadline = facts.now + facts.timeout
    slot.kill_at = deadline if slot.kill_at is None else min(slot.kill_at, deadline)
    slot.reason = reasons.leaving_after_failure(facts.cause, facts.timeout)
    return [Publish(slot.slotno), Log("WARNING", f"{who(slot)} {facts.cause}")]


def terminate(slot: Slot, facts: Facts) -> list[Effect]:
    """First step of the ladder: a signal to the worker alone, which may end what it started in good order."""
    _strengthen(slot, facts)
    # Before its function is called nothing has prepared for another signal, and the runtime itself listens for this one.
    signum = SIGTERM if slot.started_at is None else slot.registration.stop_signum
    return _begin_to_go(slot, facts, signum, whole_session=False)


def give_up(slot: Slot, facts: Facts) -> list[Effect]:
    """It hangs: it is to write where, then goes as on a wish. Nobody wished it, so its restart rules say what follows."""
    assert slot.pid is not None, "a worker that runs has a pid"
    slot.failure = slot.cause = facts.cause
    log = Log(
        "WARNING",
        f"{who(slot)} is {facts.cause}",
        "It was told to write where in Python it is to its log, and to go.",
        "A worker moves when it reaches its latch, reports its activity or calls progress(); raise watchdog if it may work longer.",
    )
    dump = Signal(slot.slotno, slot.generation, slot.pid, SIGTRAP, False)
    published, ask = _begin_to_go(slot, facts, slot.registration.stop_signum, whole_session=False)
    return [published, log, dump, ask]


def give_up_start(slot: Slot, facts: Facts) -> list[Effect]:
    """It runs, and has not said in time that it is ready: a failed start. It goes as on a wish."""
    slot.failure = slot.cause = facts.cause
    log = Log(
        "WARNING",
        f"{who(slot)} {facts.cause}",
        "It was told to go.",
        "A worker says so with ready(), a program by its NOTIFY_SOCKET; raise start_timeout if it may take longer.",
    )
    return [*_begin_to_go(slot, facts, slot.registration.stop_signum, whole_session=False), log]


def quit_(slot: Slot, facts: Facts) -> list[Effect]:
    """First step of the short ladder: SIGQUIT to the whole session, as the postmaster's goes to the process group."""
    has_changed = _strengthen(slot, facts)
    if slot.state is SlotState.TERMINATING and (slot.kill_at is None or slot.pid is None):
        # After SIGKILL there is nothing stronger to send, and a birth is called off only once.
        slot.reason = reasons.leaving(slot)
        return [Publish(slot.slotno)] if has_changed else []
    return _begin_to_go(slot, facts, SIGQUIT, whole_session=True)


def kill(slot: Slot, facts: Facts) -> list[Effect]:
    """Last step: SIGKILL to the whole session. Only the kernel can end the wait now, so there is no deadline."""
    if slot.state is SlotState.LAUNCHING:
        # The start is given up; signals but SIGKILL mean nothing to a process that has not unblocked any.
        slot.failure = slot.failure or facts.cause
        slot.cause = slot.failure
        log = Log("WARNING", f"{who(slot)} {slot.failure}", "Its process is killed, which counts as a failed start.")
        if slot.pid is None:
            return [*_begin_to_go(slot, facts, SIGKILL, whole_session=True), log]
    elif facts.pid is not None:
        slot.pid = facts.pid
        log = Log("DEBUG", f"{who(slot)} was born after its birth was called off", "It is killed.")
    else:
        log = Log(
            "WARNING",
            f"{who(slot)} did not stop within {reasons.seconds(slot.grace)}",
            "Every process of its session is killed with SIGKILL.",
            f"A worker that never calls unblock_signals(), or does not return to its latch, does not notice {_stop_signal(slot)}.",
        )
    assert slot.pid is not None, "an unanswered birth is given up, not killed"
    slot.kill_at = None
    slot.reason = reasons.leaving(slot)
    return [Publish(slot.slotno), log, Signal(slot.slotno, slot.generation, slot.pid, SIGKILL, True)]


def note_intent(slot: Slot, facts: Facts) -> list[Effect]:
    """Its process was told to go before; only what follows changes, and only to something stronger."""
    if not _strengthen(slot, facts):
        return []
    slot.reason = reasons.leaving(slot)
    return [Publish(slot.slotno)]


def bring_forward(slot: Slot, facts: Facts) -> list[Effect]:
    """Somebody wants the next life now; what the guard has counted until here is forgiven."""
    if slot.state is SlotState.NOT_YET_STARTED and slot.restart_at is None:
        return []  # it starts as soon as it may
    slot.restart_at = facts.now
    slot.quick_exits = slot.failures = 0
    slot.cause = facts.cause
    slot.reason = reasons.join(facts.cause, reasons.STARTS_AT_ONCE)
    return [Publish(slot.slotno)]


def wait(slot: Slot, facts: Facts) -> list[Effect]:
    """The process is gone and another life follows, with the new registration if a reload brought one."""
    slot.end_life(facts.last_exit)
    slot.restart_at = facts.now + facts.delay
    slot.run = facts.run
    slot.quick_exits, slot.failures = facts.quick_exits, facts.failures
    slot.cause = facts.cause
    slot.reason = facts.reason
    if slot.replacement is not None:
        slot.worker, slot.replacement = slot.replacement, None
    return [Publish(slot.slotno)]


def forget(slot: Slot, facts: Facts) -> list[Effect]:
    """The registration is over; the slot is free before anybody is told (bgworker.c: forget, then notify)."""
    last_exit = facts.last_exit or slot.last_exit
    forgotten = Forgotten(
        slot.slotno, slot.generation, slot.registration, slot.origin, last_exit, facts.reason, has_failed=facts.has_failed
    )
    log = Log("DEBUG", f'unregistering background worker "{slot.name}"', reasons.sentence(facts.reason))
    slot.clear()
    return [Publish(slot.slotno), log, forgotten]


def _stop_signal(slot: Slot) -> str:
    return "SIGTERM" if slot.started_at is None else f"SIG{slot.registration.stop_signal}"


def _strengthen(slot: Slot, facts: Facts) -> bool:
    """Take over the intent if it is stronger than the one before; return whether anything changed."""
    assert facts.intent is not None
    is_stronger = slot.intent is None or facts.intent > slot.intent
    # Of two terminations that one's word stands which must say how the worker comes back.
    is_last_word = facts.intent is slot.intent and _LAST_WORDS.get(facts.cause, 0) > _LAST_WORDS.get(slot.cause, 0)
    if not (is_stronger or is_last_word):
        return False
    slot.intent = facts.intent
    slot.cause = facts.cause
    return True


def _begin_to_go(slot: Slot, facts: Facts, signum: int, *, whole_session: bool) -> list[Effect]:
    """Send the signal, or call the birth off, and set the next deadline; a nearer one stays."""
    # A birth is called off by the loader, so the worker's own stop_timeout says nothing about it.
    slot.grace = facts.timeout if slot.pid is not None else ANSWER_TIMEOUT
    deadline = facts.now + slot.grace
    # In LAUNCHING the deadline was that of the start, which this one takes the place of.
    is_nearer = slot.state is SlotState.TERMINATING and slot.kill_at is not None and slot.kill_at < deadline
    slot.kill_at = slot.kill_at if is_nearer else deadline
    slot.reason = reasons.leaving(slot)
    if slot.pid is None:
        return [Publish(slot.slotno), Abandon(slot.slotno, slot.generation, slot.attempt)]
    return [Publish(slot.slotno), Signal(slot.slotno, slot.generation, slot.pid, signum, whole_session)]


ACTIONS: Final[dict[Action, Callable[[Slot, Facts], list[Effect]]]] = {
    Action.AWAIT_START: await_start,
    Action.BRING_FORWARD: bring_forward,
    Action.FORGET: forget,
    Action.GIVE_UP: give_up,
    Action.GIVE_UP_START: give_up_start,
    Action.KILL: kill,
    Action.LAUNCH: launch,
    Action.LAUNCH_AGAIN: launch_again,
    Action.NOTE_FAILURE: note_failure,
    Action.NOTE_INTENT: note_intent,
    Action.NOTE_PID: note_pid,
    Action.NOTE_READY: note_ready,
    Action.NOTE_STARTED: note_started,
    Action.NOTE_WAIT: note_wait,
    Action.QUIT: quit_,
    Action.TERMINATE: terminate,
    Action.WAIT: wait,
}
