"""What becomes of a worker, told to everybody who wants to know: log, history, subscribers, bgw_notify_pid.

Decides nothing: the machine has decided, and its state is already the new one. The record of
an exit in history.jsonl gets its last lines and the OOM hint from the collector, by its ``life``.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from bgworker._baggage import Baggage
from bgworker._core import effects as fx
from bgworker._core.slots import SlotMachine
from bgworker._core.states import SlotState
from bgworker._host.askers import Askers
from bgworker._host.births import WorkerProcess
from bgworker._host.callers import Caller, Callers, NotifyTarget
from bgworker._host.records import Records
from bgworker._host.status import exit_view, state_name
from bgworker._spec import BackgroundWorker, printable
from bgworker._version import __version__


class News:
    """Tells of starts, exits and ends.

    Args:
        machine: Read for the slots' new states.
        callers: Some of them have subscribed.
        records: Log and history.
    """

    def __init__(self, machine: SlotMachine, callers: Callers, records: Records) -> None:
        self._machine = machine
        self._callers = callers
        self._records = records
        self.askers = Askers()
        self._targets: dict[tuple[int, int], NotifyTarget] = {}
        #: When the current life of a registration started; monotonic.
        self._started_at: dict[tuple[int, int], float] = {}
        #: The process whose exit the machine is about to be told.
        self._ending: WorkerProcess | None = None

    def carry(self, baggage: Baggage) -> dict[str, Any]:
        """Return what is known of registrations beside what the machine knows."""
        return {
            "targets": [[key, target.carry(baggage)] for key, target in self._targets.items()],
            "started_at": [[key, at] for key, at in self._started_at.items()],
            "askers": self.askers.carry(),
        }

    def resume(self, carried: Mapping[str, Any], baggage: Baggage) -> None:
        """Take back what ``carry`` has told of."""
        self._targets = {(int(s), int(g)): NotifyTarget.resume(target, baggage) for (s, g), target in carried["targets"]}
        self._started_at = {(int(s), int(g)): float(at) for (s, g), at in carried["started_at"]}
        self.askers.resume(carried["askers"])

    def notify(self, key: tuple[int, int], worker: BackgroundWorker, whom: Caller | None) -> None:
        """Remember whom bgw_notify_pid names, if it is a process that this host knows (C13)."""
        pid, name = worker.bgw_notify_pid, printable(worker.bgw_name)
        target = None
        if whom is not None:
            try:
                target = NotifyTarget(whom)
            except OSError:
                pass  # it has just ended
        if target is None:
            self._records.log(
                "LOG",
                f'worker notification PID {pid} of background worker "{name}" is not valid',
                "It is no worker and no connected client; nobody is notified.",
            )
            return
        if not target.is_ready():
            self._records.log(
                "LOG",
                f'process {pid} is not notified by signal about background worker "{name}" for now',
                "SIGUSR1 has its default action there, which would end the process.",
                "Install a handler for SIGUSR1 before registering, or leave bgw_notify_pid at 0.",
            )
        self._targets[key] = target

    def started(self, effect: fx.Started) -> None:
        """Tell that a worker is about to call its function."""
        self._notify(effect.slotno, effect.generation)
        self._started_at[effect.slotno, effect.generation] = time.monotonic()
        worker = self._machine.slots[effect.slotno].worker
        if worker is not None:
            message = f'background worker "{printable(worker.bgw_name)}" (PID {effect.pid}) started'
            self._records.log("LOG", message)
            self._tell(effect, worker, "started", effect.pid, message)
            self._records.history({"event": "started", "at": _now(), **_identity(effect, worker), "pid": effect.pid})

    def ends(self, process: WorkerProcess) -> None:
        """Take the process that the next exit is about."""
        self._ending = process

    def exited(self, effect: fx.Exited) -> None:
        """Tell that a process of a worker is gone. The machine has logged it."""
        self._notify(effect.slotno, effect.generation)
        slot, worker = self._machine.slots[effect.slotno], effect.worker
        view = exit_view(effect.exit)
        message = f"{worker.bgw_name} ({effect.pid}) ended: {effect.exit.reason}"
        if slot.generation == effect.generation and slot.reason:
            message += f"; {slot.reason}"
        self._tell(effect, worker, "exited", effect.pid, message, last_exit=view)
        self._records.history(
            {
                "event": "exited",
                **_identity(effect, worker),
                "pid": effect.pid,
                **(view or {}),
                "signal_name": _signal_name(effect.exit.signal),
                "is_crash": effect.exit.is_crash,
                "was_requested": effect.exit.was_requested,
                "is_failed_start": effect.exit.is_failed_start,
                "is_success": effect.exit.is_success,
                **self._particulars(effect),
            }
        )

    def _particulars(self, effect: fx.Exited) -> dict[str, Any]:
        """Return what history tells of an exit beyond what status shows."""
        key = (effect.slotno, effect.generation)
        process, self._ending = self._ending, None
        started_at = self._started_at.pop(key, None)
        record: dict[str, Any] = {
            "asked_by": self.askers.of(key, effect.exit.asked),
            # Of a start that failed there is no uptime.
            "uptime": None if started_at is None else round(max(0.0, effect.exit.at - started_at), 3),
            "usage": None,
            # A worker that a host before this one has started has the code of that time.
            "versions": {
                "bgworker": __version__ if process is None else process.code.get("bgworker", __version__),
                "library": None,
            },
        }
        if process is not None and process.life[:2] == key:
            record["life"] = str(process.birth)  # as the collector knows its output
            if (usage := process.usage) is not None:
                record["usage"] = {"user": round(usage.user, 3), "system": round(usage.system, 3), "max_rss": usage.max_rss}
            if version := process.code.get("version"):
                record["versions"]["library"] = f"{process.code.get('distribution', '')} {version}".strip()
        return record

    def finished(self, effect: fx.Forgotten) -> None:
        """Tell that a registration is over; nobody is notified about it any more."""
        if (target := self._targets.pop((effect.slotno, effect.generation), None)) is not None:
            target.close()
        self.askers.forget((effect.slotno, effect.generation))
        self._started_at.pop((effect.slotno, effect.generation), None)
        message = f'background worker "{printable(effect.worker.bgw_name)}" is finished: {effect.reason}'
        if self._machine.shutdown is None:
            self._records.log("LOG", message)
        self._tell(effect, effect.worker, "state", None, message)

    def host_is(self, state: str) -> None:
        """Tell the host's own state."""
        self._callers.broadcast({"event": "host", "at": _now(), "state": state, "message": f"the host's state is {state}"})

    def _notify(self, slotno: int, generation: int) -> None:
        target = self._targets.get((slotno, generation))
        if target is not None:
            target.notify()

    def _tell(
        self,
        effect: fx.Started | fx.Exited | fx.Forgotten,
        worker: BackgroundWorker,
        event: str,
        pid: int | None,
        message: str,
        last_exit: Any = None,
    ) -> None:
        slot = self._machine.slots[effect.slotno]
        is_current = slot.generation == effect.generation and slot.state is not SlotState.FREE
        self._callers.broadcast(
            {
                "event": event,
                "at": _now(),
                **_identity(effect, worker),
                "pid": pid,
                "state": state_name(slot) if is_current else "finished",
                "last_exit": last_exit,
                "message": message,
            }
        )


def _identity(effect: fx.Started | fx.Exited | fx.Forgotten, worker: BackgroundWorker) -> dict[str, Any]:
    return {
        "slot": effect.slotno,
        "generation": effect.generation,
        "bgw_name": worker.bgw_name,
        "bgw_type": worker.bgw_type,
    }


def _signal_name(signum: int | None) -> str | None:
    if signum is None:
        return None
    try:
        return signal.Signals(signum).name
    except ValueError:  # a real-time signal
        return f"SIG{signum}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
