"""The host's facts as ``status`` shows them (design section 7), each slot's part encoded once per change."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from bgworker import _supervision as supervision
from bgworker import _surroundings
from bgworker._core.codec import read, write
from bgworker._core.slots import Exit, Slot
from bgworker._core.states import Origin, SlotState
from bgworker._spec import BackgroundWorker, flag_names, printable

#: Registrations that have ended and are still listed.
_MAX_FINISHED: Final = 100

#: What a worker says of its code, and how long one part of it may be.
_CODE_KEYS: Final = ("distribution", "version", "path", "files", "bgworker")
_MAX_CODE: Final = 1000

_VISIBLE: Final = {
    SlotState.NOT_YET_STARTED: "not_yet_started",
    SlotState.STARTED: "started",
    SlotState.WAITING_RESTART: "waiting_restart",
    SlotState.TERMINATING: "terminating",
}


def timestamp(monotonic: float) -> str:
    """Return a monotonic instant as RFC 3339 in UTC, by the wall clock as it is now."""
    wall = time.time() - (time.monotonic() - monotonic)
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def exit_view(exit_: Exit | None) -> dict[str, Any] | None:
    """Return an exit as JSON values."""
    if exit_ is None:
        return None
    return {"code": exit_.code, "signal": exit_.signal, "at": timestamp(exit_.at), "reason": exit_.reason}


def state_name(slot: Slot) -> str:
    """Return the state's public name; a launch in progress is the wait before it, to whoever watches."""
    if slot.state is SlotState.LAUNCHING:
        return "waiting_restart" if slot.attempt > 1 else "not_yet_started"
    return _VISIBLE[slot.state]


def code_view(said: object) -> dict[str, str]:
    """Return what a worker said of its code, as far as it can be shown; it may have said anything."""
    if not isinstance(said, dict):
        return {}
    return {key: printable(said[key])[:_MAX_CODE] for key in _CODE_KEYS if isinstance(said.get(key), str)}


def slot_view(slot: Slot, code: dict[str, str] | None = None) -> dict[str, Any]:
    """Return one slot in use as JSON values; activity is the reader's to fill in."""
    worker = slot.worker
    assert worker is not None
    return {
        "slot": slot.slotno,
        "generation": slot.generation,
        "bgw_name": worker.bgw_name,
        "bgw_type": worker.bgw_type,
        "bgw_library_name": worker.bgw_library_name,
        "bgw_function_name": worker.bgw_function_name,
        "bgw_flags": flag_names(worker.bgw_flags),
        "bgw_start_time": worker.bgw_start_time.value,
        "bgw_restart_time": None if worker.is_never_restarted else worker.bgw_restart_time,
        "state": state_name(slot),
        "pid": slot.pid,
        "origin": slot.origin.value,
        "restarts": slot.restarts,
        "started_at": None if slot.started_at is None else timestamp(slot.started_at),
        "restart_at": None if slot.restart_at is None else timestamp(slot.restart_at),
        "last_exit": exit_view(slot.last_exit),
        "activity": {"state": "", "text": "", "wait_event": ""},
        "reason": slot.reason,
        "config": {**config_view(worker), "segments": sorted(segment.name for segment in slot.segments), "code": code or {}},
    }


def config_view(worker: BackgroundWorker) -> dict[str, Any]:
    """Return our own keys as they took effect."""
    return {
        "wake_on": list(worker.wake_on),
        "stop_timeout": worker.stop_timeout,
        "stop_when": worker.stop_when,
        "singleton": worker.singleton,
        **{key: getattr(worker, key) for key in supervision.KEYS},
        "command": list(worker.command) if worker.command is not None else None,
        **{key: _surroundings.shown(key, getattr(worker, key)) for key in _surroundings.KEYS},
    }


def summary(state: str, slots: Iterable[Slot]) -> str:
    """Return the host in one line, as a service manager shows it."""
    states = [slot.state for slot in slots if slot.state is not SlotState.FREE]
    down = len(states) - states.count(SlotState.STARTED)
    return f"{state}; {states.count(SlotState.STARTED)} workers started" + (f", {down} not" if down else "")


class Finished:
    """Registrations that have ended, newest last; a bounded list, one entry per name."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, tuple[Origin, dict[str, Any]]] = OrderedDict()
        self._reasons: OrderedDict[tuple[int, int], tuple[str, Exit | None]] = OrderedDict()

    def add(
        self, slotno: int, generation: int, worker: BackgroundWorker, origin: Origin, last_exit: Exit | None, reason: str
    ) -> None:
        """List a registration that has ended."""
        self._entries.pop(worker.bgw_name, None)
        self._entries[worker.bgw_name] = (
            origin,
            {
                "bgw_name": worker.bgw_name,
                "slot": slotno,
                "generation": generation,
                "last_exit": exit_view(last_exit),
                "reason": reason,
            },
        )
        self._reasons[slotno, generation] = (reason, last_exit)
        while len(self._entries) > _MAX_FINISHED:
            # Static workers can still be revived by name, and are looked for here: the oldest dynamic one goes first.
            name = next((n for n, (o, _v) in self._entries.items() if o is Origin.DYNAMIC), next(iter(self._entries)))
            del self._entries[name]
        while len(self._reasons) > 10 * _MAX_FINISHED:
            self._reasons.popitem(last=False)

    def carry(self) -> dict[str, Any]:
        """Return the list as JSON values, and what is known of the registrations beside."""
        return {
            "entries": [[name, write(origin), view] for name, (origin, view) in self._entries.items()],
            "reasons": [[key, reason, write(end)] for key, (reason, end) in self._reasons.items()],
        }

    def resume(self, carried: Mapping[str, Any]) -> None:
        """Take back what ``carry`` has told of.

        Raises:
            UnreadableError: It has not.
        """
        entries = read(list[tuple[str, Origin, dict[str, Any]]], carried["entries"])
        self._entries = OrderedDict((name, (origin, view)) for name, origin, view in entries)
        reasons = read(list[tuple[tuple[int, int], str, Exit | None]], carried["reasons"])
        self._reasons = OrderedDict((key, (reason, end)) for key, reason, end in reasons)

    def reason(self, slotno: int, generation: int) -> str:
        """Return why a registration ended, if it is still known."""
        return self._reasons.get((slotno, generation), ("", None))[0]

    def last_exit(self, slotno: int, generation: int) -> Exit | None:
        """Return the last exit of a registration that has ended, if it is still known."""
        return self._reasons.get((slotno, generation), ("", None))[1]

    def why(self, name: str) -> str:
        """Return why the registration of this name ended, as it is listed; empty when it is not."""
        entry = self._entries.get(name)
        return "" if entry is None else str(entry[1]["reason"])

    def find(self, name: str) -> dict[str, Any] | None:
        """Return the entry that a name means, or a slot or slot.generation, the latest first; None when none is listed."""
        if (entry := self._entries.get(name)) is not None:
            return entry[1]
        views = (view for _origin, view in reversed(self._entries.values()))
        return next((v for v in views if name in (f"{v['slot']}", f"{v['slot']}.{v['generation']}")), None)

    def has(self, name: str) -> bool:
        """Whether a worker of this name is listed."""
        return name in self._entries

    def reword(self, name: str, reason: str) -> None:
        """Give a worker that is listed another reason why it is not there; one that is not listed has none."""
        if (entry := self._entries.get(name)) is not None:
            entry[1]["reason"] = reason

    def discard(self, name: str) -> None:
        """Take a name off the list: it is registered again, or no longer configured."""
        self._entries.pop(name, None)

    def view(self) -> list[dict[str, Any]]:
        """Return the list as JSON values."""
        return [view for _origin, view in self._entries.values()]
