"""The transition table of a slot: state x event -> next state and action, or a named rejection.

Data and one lookup. ``roster`` fires the events, ``actions`` holds the functions that the
actions name; nobody outside this room may import it.

The rules, in words:

Rule 1. A slot has at most one process. Only LAUNCH leads to one, and it is possible only in
    the two states that have none. From then on the slot stays in LAUNCHING, STARTED or
    TERMINATING until the end of that process is known (GONE_*): no wish, deadline or
    shutdown frees a slot whose process may still live.

Rule 2. This table does not know why. Terminate, restart and shutdown are *intents*, kept in
    a field of the slot where the strongest wins; TERMINATING is the same state for all of
    them. Which of GONE_FOR_GOOD and GONE_TO_RESTART an exit becomes is decided in
    ``restart.after_exit`` before the event is fired.

Rule 3. A wish for a slot that has no process is granted on the spot: terminate or shutdown
    forgets it, start or restart brings its next launch forward. It never launches anything
    for a moment only to stop it again.

Rule 4. One deadline at a time. In LAUNCHING it is the start timeout, which WAITS takes away; a worker
    that says when it is ready keeps it in STARTED until READY. In
    TERMINATING the next step of the kill ladder; OVERDUE means that it passed. After SIGKILL there is no further
    step and no deadline: only the kernel can end the wait. A STARTED worker has deadlines only if it
    asked for them: its watchdog, whose end is STUCK, and its max_age, whose end is a RESTART.

Rule 5. STARTED, START_FAILED, WAITS and BORN come from processes that plugin code runs in. They may
    come late, twice or not at all; each cell says so by a rejection, and none may harm the
    host. A rejection marked impossible is a mistake of our own code and raises.

Theory of operation: what arrives is first matched by slot, generation and attempt in
``roster``; what belongs to the past never reaches this table. Whatever is left is looked up
here; an accepted event sets the next state and runs the one action, which fills in the
slot's other fields and returns effects.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from bgworker._core.states import SlotState

__all__ = ["TABLE", "Action", "Event", "ImpossibleTransition", "Rejection", "Step", "look_up"]


class Event(Enum):
    """What can happen to a slot."""

    #: A registration took this free slot.
    REGISTER = "register"
    #: The machine's own turn found it due: phase reached, restart time over, no shutdown.
    LAUNCH = "launch"
    #: The pid of the birth in flight is known.
    BORN = "born"
    #: Its process was killed before it knew whose it was: the launch stands and needs another one.
    LOST = "lost"
    #: The worker says it found its function and is about to call it.
    STARTED = "started"
    #: The worker says why it cannot start; its exit follows.
    START_FAILED = "start_failed"
    #: The worker says what outside of this host it waits for before it can start: another holder of its singleton lock.
    WAITS = "waits"
    #: The worker says that others may count on it.
    READY = "ready"
    #: The slot's deadline passed, or the launch turned out hopeless.
    OVERDUE = "overdue"
    #: The process is gone, or there never was one, and another life follows.
    GONE_TO_RESTART = "gone_to_restart"
    #: The process is gone, or there never was one, and that was the last life.
    GONE_FOR_GOOD = "gone_for_good"
    #: Terminate, by an operator or through the handle.
    TERMINATE = "terminate"
    #: Stop it and start it again.
    RESTART = "restart"
    #: Start it now instead of later.
    START = "start"
    #: The host shuts down: go, as FAST says.
    STOP = "stop"
    #: The host shuts down: go, as IMMEDIATE says.
    QUIT = "quit"
    #: Another worker of the same crash scope crashed (C31).
    REINITIALISE = "reinitialise"
    #: Its watchdog has heard nothing for too long.
    STUCK = "stuck"


class Action(Enum):
    """What is done on a transition; each names one function of ``actions``."""

    AWAIT_START = "await_start"
    BRING_FORWARD = "bring_forward"
    FORGET = "forget"
    GIVE_UP = "give_up"
    KILL = "kill"
    GIVE_UP_START = "give_up_start"
    LAUNCH = "launch"
    LAUNCH_AGAIN = "launch_again"
    NOTE_FAILURE = "note_failure"
    NOTE_INTENT = "note_intent"
    NOTE_PID = "note_pid"
    NOTE_READY = "note_ready"
    NOTE_STARTED = "note_started"
    NOTE_WAIT = "note_wait"
    QUIT = "quit"
    TERMINATE = "terminate"
    WAIT = "wait"


class Rejection(Enum):
    """Why an event changes nothing in a state."""

    #: Terminated, exited or given up: nobody is here any more.
    NO_WORKER = "no worker is registered there"
    #: Also what is left when a message of a process arrives after its end was known.
    NO_PROCESS = "it has no process"
    ALREADY_BORN = "its process is already known"
    ALREADY_STARTED = "it has already started"
    ALREADY_RUNNING = "it is already running or being launched"
    ALREADY_GOING = "it was already told to go"
    #: Impossible: register takes only free slots.
    SLOT_TAKEN = "the slot is taken"
    #: Impossible: rule 1.
    SECOND_PROCESS = "it has, or may have, a process"
    #: Impossible: only waiting slots are found due.
    NOTHING_TO_LAUNCH = "there is nothing to launch"
    #: Impossible: the state has no such deadline.
    NO_DEADLINE = "it has no deadline"

    @property
    def is_impossible(self) -> bool:
        """Whether only a mistake in this room can lead here."""
        return self in _IMPOSSIBLE


_IMPOSSIBLE: Final = (Rejection.SLOT_TAKEN, Rejection.SECOND_PROCESS, Rejection.NOTHING_TO_LAUNCH, Rejection.NO_DEADLINE)


class ImpossibleTransition(AssertionError):  # noqa: N818 - a finding, as its base is; nobody catches it to go on
    """The machine contradicts itself; nothing was changed."""


class Step(NamedTuple):
    """An accepted event."""

    next_state: SlotState
    action: Action


# Local names keep each row on one line; E is the event, R the rejection, S the state, A the action.
E, R, S, A = Event, Rejection, SlotState, Action

TABLE: Final[dict[SlotState, dict[Event, Step | Rejection]]] = {
    S.FREE: {
        E.REGISTER: Step(S.NOT_YET_STARTED, A.AWAIT_START),
        E.LAUNCH: R.NOTHING_TO_LAUNCH,
        E.BORN: R.NO_WORKER,
        E.LOST: R.NO_WORKER,
        E.STARTED: R.NO_WORKER,
        E.START_FAILED: R.NO_WORKER,
        E.WAITS: R.NO_WORKER,
        E.READY: R.NO_WORKER,
        E.OVERDUE: R.NO_DEADLINE,
        E.GONE_TO_RESTART: R.NO_WORKER,
        E.GONE_FOR_GOOD: R.NO_WORKER,
        E.TERMINATE: R.NO_WORKER,
        E.RESTART: R.NO_WORKER,
        E.START: R.NO_WORKER,
        E.STOP: R.NO_WORKER,
        E.QUIT: R.NO_WORKER,
        E.REINITIALISE: R.NO_WORKER,
        E.STUCK: R.NO_DEADLINE,
    },
    S.NOT_YET_STARTED: {
        E.REGISTER: R.SLOT_TAKEN,
        E.LAUNCH: Step(S.LAUNCHING, A.LAUNCH),
        E.BORN: R.NO_PROCESS,
        E.LOST: R.NO_PROCESS,
        E.STARTED: R.NO_PROCESS,
        E.START_FAILED: R.NO_PROCESS,
        E.WAITS: R.NO_PROCESS,
        E.READY: R.NO_PROCESS,
        E.OVERDUE: R.NO_DEADLINE,
        E.GONE_TO_RESTART: R.NO_PROCESS,
        E.GONE_FOR_GOOD: R.NO_PROCESS,
        E.TERMINATE: Step(S.FREE, A.FORGET),
        # Only a schedule puts a first launch off; without one there is nothing to bring forward.
        E.RESTART: Step(S.NOT_YET_STARTED, A.BRING_FORWARD),
        E.START: Step(S.NOT_YET_STARTED, A.BRING_FORWARD),
        E.STOP: Step(S.FREE, A.FORGET),
        E.QUIT: Step(S.FREE, A.FORGET),
        E.REINITIALISE: R.NO_PROCESS,
        E.STUCK: R.NO_DEADLINE,
    },
    S.LAUNCHING: {
        E.REGISTER: R.SLOT_TAKEN,
        E.LAUNCH: R.SECOND_PROCESS,
        E.BORN: Step(S.LAUNCHING, A.NOTE_PID),
        E.LOST: Step(S.LAUNCHING, A.LAUNCH_AGAIN),
        E.STARTED: Step(S.STARTED, A.NOTE_STARTED),
        E.START_FAILED: Step(S.LAUNCHING, A.NOTE_FAILURE),
        E.WAITS: Step(S.LAUNCHING, A.NOTE_WAIT),
        E.READY: Step(S.LAUNCHING, A.NOTE_READY),
        E.OVERDUE: Step(S.TERMINATING, A.KILL),
        E.GONE_TO_RESTART: Step(S.WAITING_RESTART, A.WAIT),
        E.GONE_FOR_GOOD: Step(S.FREE, A.FORGET),
        E.TERMINATE: Step(S.TERMINATING, A.TERMINATE),
        E.RESTART: Step(S.TERMINATING, A.TERMINATE),
        E.START: R.ALREADY_RUNNING,
        E.STOP: Step(S.TERMINATING, A.TERMINATE),
        E.QUIT: Step(S.TERMINATING, A.QUIT),
        E.REINITIALISE: Step(S.TERMINATING, A.QUIT),
        E.STUCK: R.NO_DEADLINE,
    },
    S.STARTED: {
        E.REGISTER: R.SLOT_TAKEN,
        E.LAUNCH: R.SECOND_PROCESS,
        E.BORN: R.ALREADY_BORN,
        E.LOST: R.ALREADY_STARTED,
        E.STARTED: R.ALREADY_STARTED,
        E.START_FAILED: R.ALREADY_STARTED,
        E.WAITS: R.ALREADY_STARTED,
        E.READY: Step(S.STARTED, A.NOTE_READY),
        E.OVERDUE: Step(S.TERMINATING, A.GIVE_UP_START),
        E.GONE_TO_RESTART: Step(S.WAITING_RESTART, A.WAIT),
        E.GONE_FOR_GOOD: Step(S.FREE, A.FORGET),
        E.TERMINATE: Step(S.TERMINATING, A.TERMINATE),
        E.RESTART: Step(S.TERMINATING, A.TERMINATE),
        E.START: R.ALREADY_RUNNING,
        E.STOP: Step(S.TERMINATING, A.TERMINATE),
        E.QUIT: Step(S.TERMINATING, A.QUIT),
        E.REINITIALISE: Step(S.TERMINATING, A.QUIT),
        E.STUCK: Step(S.TERMINATING, A.GIVE_UP),
    },
    S.WAITING_RESTART: {
        E.REGISTER: R.SLOT_TAKEN,
        E.LAUNCH: Step(S.LAUNCHING, A.LAUNCH),
        E.BORN: R.NO_PROCESS,
        E.LOST: R.NO_PROCESS,
        E.STARTED: R.NO_PROCESS,
        E.START_FAILED: R.NO_PROCESS,
        E.WAITS: R.NO_PROCESS,
        E.READY: R.NO_PROCESS,
        E.OVERDUE: R.NO_DEADLINE,
        E.GONE_TO_RESTART: R.NO_PROCESS,
        E.GONE_FOR_GOOD: R.NO_PROCESS,
        E.TERMINATE: Step(S.FREE, A.FORGET),
        E.RESTART: Step(S.WAITING_RESTART, A.BRING_FORWARD),
        E.START: Step(S.WAITING_RESTART, A.BRING_FORWARD),
        E.STOP: Step(S.FREE, A.FORGET),
        E.QUIT: Step(S.FREE, A.FORGET),
        E.REINITIALISE: R.NO_PROCESS,
        E.STUCK: R.NO_DEADLINE,
    },
    S.TERMINATING: {
        E.REGISTER: R.SLOT_TAKEN,
        E.LAUNCH: R.SECOND_PROCESS,
        # Only of an abandoned birth: nothing of the worker's has been told to end in good order.
        E.BORN: Step(S.TERMINATING, A.KILL),
        E.LOST: R.ALREADY_GOING,
        E.STARTED: R.ALREADY_GOING,
        E.START_FAILED: R.ALREADY_GOING,
        E.WAITS: R.ALREADY_GOING,
        E.READY: R.ALREADY_GOING,
        E.OVERDUE: Step(S.TERMINATING, A.KILL),
        E.GONE_TO_RESTART: Step(S.WAITING_RESTART, A.WAIT),
        E.GONE_FOR_GOOD: Step(S.FREE, A.FORGET),
        E.TERMINATE: Step(S.TERMINATING, A.NOTE_INTENT),
        E.RESTART: Step(S.TERMINATING, A.NOTE_INTENT),
        E.START: R.ALREADY_GOING,
        E.STOP: Step(S.TERMINATING, A.NOTE_INTENT),
        E.QUIT: Step(S.TERMINATING, A.QUIT),
        E.REINITIALISE: Step(S.TERMINATING, A.QUIT),
        E.STUCK: R.NO_DEADLINE,
    },
}


def look_up(state: SlotState, event: Event) -> Step | Rejection:
    """Return what the event does in the state.

    Raises:
        ImpossibleTransition: Only a mistake in this room can bring this event in this state.
    """
    found = TABLE[state][event]
    if isinstance(found, Rejection) and found.is_impossible:
        raise ImpossibleTransition(f"event {event.name} in state {state.name}: {found.value}")
    return found
