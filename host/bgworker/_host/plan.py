"""What a reload does to each static worker, decided before anything is done.

Pure: the configuration as it is and as it is to be, worker by worker, in; what follows for
each, and why, out. ``reload`` carries the plan out, ``bgworker plan`` prints it: there is one
decision, so the two cannot differ. Imported by ``reload`` alone.
"""

from __future__ import annotations

import enum
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from bgworker._spec import BackgroundWorker, printable
from bgworker._toml_text import value_text

#: Changed keys that one reason names, and longest value that it shows, in characters.
_MAX_NAMED: Final = 8
_MAX_VALUE: Final = 60
#: Parts of one value that are told apart.
_MAX_PARTS: Final = 50


class Action(enum.Enum):
    """What becomes of one worker."""

    #: It stays as it is.
    NOTHING = "nothing"
    #: The host acts by the new values from now on; the process runs on.
    LIVE = "live"
    #: Its process is stopped and another one started, with the new registration.
    RESTART = "restart"
    #: The new registration waits for the worker's next life.
    LATER = "later"
    START = "start"
    STOP = "stop"
    #: It cannot be registered.
    REJECTED = "rejected"


class Effect(enum.Enum):
    """When a changed key takes effect."""

    #: At once: only the host acts by it.
    LIVE = "live"
    #: With the worker's next process, which has it from its birth.
    RESTART = "restart"


class Shown(enum.Enum):
    """What of a key's old and new value may be shown to whoever may ask for a plan."""

    VALUE = "value"
    #: Numbers, true and false; of a string only that it changed.
    NUMBERS = "numbers"
    NOTHING = "nothing"


class Row(NamedTuple):
    """What the host knows of a key of BackgroundWorker."""

    effect: Effect
    shown: Shown


_LIVE, _RESTART = Effect.LIVE, Effect.RESTART

#: Every key of a registration; tests/contract/test_plan.py holds it to be complete.
KEYS: Final[dict[str, Row]] = {
    "bgw_name": Row(_RESTART, Shown.VALUE),
    "bgw_type": Row(_RESTART, Shown.VALUE),
    "bgw_flags": Row(_RESTART, Shown.VALUE),
    "bgw_start_time": Row(_LIVE, Shown.VALUE),
    "bgw_restart_time": Row(_LIVE, Shown.VALUE),
    "bgw_library_name": Row(_RESTART, Shown.VALUE),
    "bgw_function_name": Row(_RESTART, Shown.VALUE),
    # Whatever an author wants to hand over, a password too.
    "bgw_main_arg": Row(_RESTART, Shown.NUMBERS),
    "bgw_extra": Row(_RESTART, Shown.NOTHING),
    "bgw_notify_pid": Row(_RESTART, Shown.VALUE),
    "wake_on": Row(_LIVE, Shown.VALUE),
    "stop_timeout": Row(_LIVE, Shown.VALUE),
    "stop_when": Row(_LIVE, Shown.VALUE),
    "singleton": Row(_RESTART, Shown.VALUE),
    "user": Row(_RESTART, Shown.VALUE),
    "group": Row(_RESTART, Shown.VALUE),
    # As everybody sees in ps.
    "command": Row(_RESTART, Shown.VALUE),
    # The names of its variables, which are the names of its parts; the values may be secrets.
    "environment": Row(_RESTART, Shown.NOTHING),
    "env_file": Row(_RESTART, Shown.VALUE),
    "working_directory": Row(_RESTART, Shown.VALUE),
    "umask": Row(_RESTART, Shown.VALUE),
    "nice": Row(_RESTART, Shown.VALUE),
    "rlimits": Row(_RESTART, Shown.VALUE),
    "restart_on": Row(_LIVE, Shown.VALUE),
    "restart_backoff": Row(_LIVE, Shown.VALUE),
    "success_exit_codes": Row(_LIVE, Shown.VALUE),
    "essential": Row(_LIVE, Shown.VALUE),
    "start_timeout": Row(_LIVE, Shown.VALUE),
    "stop_signal": Row(_RESTART, Shown.VALUE),
    "max_age": Row(_RESTART, Shown.VALUE),
    "max_memory": Row(_RESTART, Shown.VALUE),
    "watchdog": Row(_RESTART, Shown.VALUE),
    "schedule": Row(_RESTART, Shown.VALUE),
    "after": Row(_LIVE, Shown.VALUE),
    "ready": Row(_RESTART, Shown.VALUE),
    "instance": Row(_RESTART, Shown.VALUE),
}
#: A key that nobody has thought about: the worker certainly has it after a restart, and nothing of it is told.
UNKNOWN: Final = Row(Effect.RESTART, Shown.NOTHING)


class KeyChange(NamedTuple):
    """One value, or one part of it, that changes."""

    #: With the path of the part, such as ``bgw_main_arg.every``.
    key: str
    old: Any
    new: Any
    is_shown: bool

    def view(self) -> dict[str, Any]:
        """Return the change as JSON values; a value that is not to be shown is not in there."""
        return {"key": self.key, **({"old": self.old, "new": self.new} if self.is_shown else {})}

    def __str__(self) -> str:
        return f"{self.key} {_text(self.old)} -> {_text(self.new)}" if self.is_shown else f"{self.key} changed"


@dataclass(frozen=True)
class Change:
    """What a reload does to one worker."""

    bgw_name: str
    action: Action
    reason: str
    keys: list[KeyChange] = field(default_factory=list)
    #: As it is to be; None for one that is no longer configured.
    worker: BackgroundWorker | None = None

    def view(self) -> dict[str, Any]:
        """Return the change as JSON values."""
        return {
            "bgw_name": self.bgw_name,
            "action": self.action.value,
            "reason": self.reason,
            "keys": [key.view() for key in self.keys],
        }


class Configured(NamedTuple):
    """A static worker as it is configured now."""

    worker: BackgroundWorker
    #: It holds a slot.
    is_registered: bool
    #: It has a process, or may have one: stopping it takes time.
    has_process: bool
    #: Why it holds no slot.
    why_down: str = ""


def make_plan(
    known: Mapping[str, Configured], wanted: Mapping[str, BackgroundWorker], free: int, *, is_upgrade: bool = False
) -> list[Change]:
    """Return what is to be done: removals first, for they free slots, then the rest in the order of the file.

    Args:
        known: The static workers configured now.
        wanted: Those of the new configuration; each can be registered.
        free: Slots that nobody holds.
        is_upgrade: Changed workers are restarted by somebody else, one after another.
    """
    changes = []
    for name, configured in known.items():
        if name in wanted:
            continue
        if configured.is_registered:
            changes.append(Change(name, Action.STOP, "it is no longer configured"))
            free += not configured.has_process
        else:
            changes.append(Change(name, Action.NOTHING, "it is no longer configured, and does not run"))
    for name, worker in wanted.items():
        configured_ = known.get(name)
        if configured_ is not None:
            changes.append(_compare(configured_, worker, is_upgrade=is_upgrade))
        elif free > 0:
            free -= 1
            changes.append(Change(name, Action.START, "it is new", worker=worker))
        else:
            changes.append(Change(name, Action.REJECTED, "it is new, and no slot is free", worker=worker))
    return changes


def _compare(configured: Configured, worker: BackgroundWorker, *, is_upgrade: bool) -> Change:
    name = worker.bgw_name
    keys = list(changed_keys(configured.worker, worker))
    if not configured.is_registered:
        why = f"it stays down ({configured.why_down})" if configured.why_down else "it stays down"
        also = f", and has changed: {_listed(keys)}" if keys else ""
        return Change(
            name, Action.NOTHING, f"{why}{also}; start it with: bgworker start {shlex.quote(printable(name))}", keys, worker
        )
    if not keys:
        return Change(name, Action.NOTHING, "", keys, worker)
    effects = {KEYS.get(key.key.partition(".")[0], UNKNOWN).effect for key in keys}
    # What a schedule has started comes to its end; what changed is for the next run.
    is_scheduled = configured.worker.schedule is not None and worker.schedule is not None
    action = Action.LIVE if effects == {Effect.LIVE} else Action.LATER if is_upgrade or is_scheduled else Action.RESTART
    return Change(name, action, _listed(keys), keys, worker)


def changed_keys(before: BackgroundWorker, after: BackgroundWorker) -> Iterator[KeyChange]:
    """Yield what differs between two registrations; of a table each part by itself."""
    old, new = before.to_dict(), after.to_dict()
    for key in new:
        if old[key] != new[key]:
            row = KEYS.get(key, UNKNOWN)
            yield from _differences(key, old[key], new[key], row.shown)


def _differences(key: str, old: Any, new: Any, shown: Shown) -> list[KeyChange]:
    if isinstance(old, dict) and isinstance(new, dict):
        parts: list[KeyChange] = []
        for part in [*old, *(part for part in new if part not in old)]:
            if part not in old or part not in new or old[part] != new[part]:
                parts += _differences(f"{key}.{printable(str(part))}", old.get(part), new.get(part), shown)
            if len(parts) > _MAX_PARTS:
                return [KeyChange(key, None, None, False)]
        return parts
    is_shown = shown is Shown.VALUE or (shown is Shown.NUMBERS and all(_is_plain(value) for value in (old, new)))
    return [KeyChange(key, old if is_shown else None, new if is_shown else None, is_shown)]


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, int | float)


def _text(value: Any) -> str:
    """Return a value as workers.toml has it; ``none``, which no TOML value looks like, for a key that is not set."""
    if value is None:
        return "none"
    try:
        # 5, as it was probably written: every number of seconds is a float here.
        text = printable(value_text(int(value) if isinstance(value, float) and value.is_integer() else value))
    except TypeError:
        return "..."
    return text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 3]}..."


def _listed(keys: list[KeyChange]) -> str:
    named = [str(key) for key in keys[:_MAX_NAMED]]
    return ", ".join([*named, *([f"and {len(keys) - _MAX_NAMED} more"] if len(keys) > _MAX_NAMED else [])])
