"""The words of the slot machine: states, intents, phases, shutdown modes, origins.

Enumerations and constants, no logic. Every room of the host may import this file;
it imports nothing of ours but the start times of ``_spec``.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Final

from bgworker._spec import BgWorkerStartTime

__all__ = [
    "HAS_PROCESS",
    "NEEDED_PHASE",
    "SIGKILL",
    "SIGQUIT",
    "SIGTERM",
    "SIGTRAP",
    "WAITS_FOR_START",
    "Intent",
    "Origin",
    "Phase",
    "ShutdownMode",
    "SlotState",
]


class SlotState(Enum):
    """What a slot holds now; what is to become of it is ``Intent``, never a state."""

    #: No registration. The generation still names the last one, so that old handles are recognised.
    FREE = "free"
    #: Registered, and no launch has been tried yet (attempt is 0).
    NOT_YET_STARTED = "not_yet_started"
    #: A birth was asked for; the process has not said that it found its function. The pid follows on the way.
    LAUNCHING = "launching"
    #: The process has found its function and calls it.
    STARTED = "started"
    #: Between two lives: no process, and another launch comes at ``restart_at`` or with the phase.
    WAITING_RESTART = "waiting_restart"
    #: Has, or may have (pid is None), a process that was told to go.
    TERMINATING = "terminating"


#: The states in which a process exists or may exist.
HAS_PROCESS: Final = frozenset({SlotState.LAUNCHING, SlotState.STARTED, SlotState.TERMINATING})
#: The states that lead to a launch by themselves.
WAITS_FOR_START: Final = frozenset({SlotState.NOT_YET_STARTED, SlotState.WAITING_RESTART})


class Intent(IntEnum):
    """What the host wants after the exit it asked for; a greater one overrides a lesser one, never the reverse.

    No intent (None in the slot) means that the exit code and ``bgw_restart_time`` decide.
    """

    #: Launch it again at once, whatever the exit code and bgw_restart_time say.
    RESTART = 1
    #: Do not launch it again, though nobody terminated this worker: the host shuts down, or a crash beside it.
    STOP = 2
    #: Terminated by an operator or through its handle: forget it (C29). Terminate beats restart.
    FORGET = 3


class Origin(Enum):
    """Who registered the worker."""

    #: workers.toml or a plugin's initialisation hook (C02).
    STATIC = "static"
    #: A worker, a plugin's ready hook or a client, while the host runs (C03).
    DYNAMIC = "dynamic"
    #: The host itself, for a worker of its own.
    BUILTIN = "builtin"


class Phase(IntEnum):
    """How far the database is; without one the host goes straight to the last (C07)."""

    STARTING = 0
    #: Read-only queries are answered.
    CONSISTENT = 1
    #: Read-write.
    RECOVERY_FINISHED = 2


#: The phase that each start time waits for.
NEEDED_PHASE: Final = {
    BgWorkerStartTime.BgWorkerStart_PostmasterStart: Phase.STARTING,
    BgWorkerStartTime.BgWorkerStart_ConsistentState: Phase.CONSISTENT,
    BgWorkerStartTime.BgWorkerStart_RecoveryFinished: Phase.RECOVERY_FINISHED,
}


class ShutdownMode(IntEnum):
    """How the host stops (C39); a greater one is stricter and overrides a lesser one, never the reverse."""

    #: Waits for handles held by connections and for workers that never restart, then goes on as FAST.
    SMART = 0
    #: SIGTERM, then SIGKILL at each worker's stop timeout.
    FAST = 1
    #: SIGQUIT, then SIGKILL.
    IMMEDIATE = 2


# The signals that the machine decides on. Numbers, because this room imports no signal module;
# these are the same on every POSIX system.
SIGQUIT: Final = 3
#: Has a worker with a watchdog write where in Python it is; lower than SIGTERM, so that it is delivered before it.
SIGTRAP: Final = 5
SIGKILL: Final = 9
SIGTERM: Final = 15
