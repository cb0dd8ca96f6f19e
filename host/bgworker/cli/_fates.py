"""What becomes of workers after an act on them: followed until each has started, waits, has failed or is gone.

Wakes up with the host's events and looks at its status then; the host itself is asked to wait
for nothing. Used by ``reload`` and ``upgrade``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from bgworker.errors import WaitTimeout
from bgworker.tui.health import answers_to, has_failed

if TYPE_CHECKING:
    from bgworker._control.client import Client, EventStream

#: Seconds after which the status is looked at without an event: a wait for the database, say, is none.
_LONGEST_SILENCE = 1.0


class Before(NamedTuple):
    """A worker before the act."""

    pid: int | None
    restarts: int


#: Of a worker that is registered by the act.
NEW = Before(None, -1)


class Fate(NamedTuple):
    """What became of one worker."""

    #: started, waits, failed or gone.
    word: str
    text: str
    pid: int | None = None


def before(status: dict[str, Any]) -> dict[str, Before]:
    """Return every registered worker as it is now, by its handle's text."""
    return {_key(slot): Before(slot["pid"], slot["restarts"]) for slot in status["slots"]}


def follow(
    client: Client,
    stream: EventStream,
    awaited: dict[str, Before],
    deadline: float | None,
    tell: Callable[[str, Fate], None] = lambda key, fate: None,
) -> dict[str, Fate]:
    """Return the fate of each worker once it is known.

    Args:
        client: Asked for the status.
        stream: Opened before the act.
        awaited: By name or handle.
        deadline: Monotonic.
        tell: Called with each fate as it becomes known.

    Raises:
        WaitTimeout: It is not known of all of them at the deadline; names those.
    """
    fates: dict[str, Fate] = {}
    while True:
        status = client.status()
        for key, was in awaited.items():
            if key not in fates and (fate := _fate(key, was, status)) is not None:
                fates[key] = fate
                tell(key, fate)
        if len(fates) == len(awaited):
            return fates
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            late = ", ".join(f'"{key}"' for key in awaited if key not in fates)
            raise WaitTimeout(f"timed out while waiting for background worker {late}", "It goes on as it was told.")
        _await_event(stream, min(_LONGEST_SILENCE, left or _LONGEST_SILENCE))


def settle(client: Client, stream: EventStream, started: dict[str, Fate], seconds: float) -> dict[str, Fate]:
    """Watch workers that have started for some seconds; return those that did not stay up."""
    until = time.monotonic() + seconds
    while True:
        status = client.status()
        fallen = {key: fate for key, was in started.items() if (fate := _fallen(key, was.pid, status)) is not None}
        left = until - time.monotonic()
        if fallen or left <= 0:
            return fallen
        _await_event(stream, min(_LONGEST_SILENCE, left))


def _await_event(stream: EventStream, seconds: float) -> None:
    try:
        stream.next_event(max(seconds, 0.01))
    except WaitTimeout:
        return


def _fate(key: str, was: Before, status: dict[str, Any]) -> Fate | None:
    slot = _find(key, status["slots"])
    if slot is None:
        over = _find(key, status["finished"]) or {}
        return Fate("failed" if has_failed(over) else "gone", str(over.get("reason") or "it has ended"))
    reason = str(slot["reason"])
    if slot["state"] == "started":
        return None if slot["pid"] == was.pid else Fate("started", f"PID {slot['pid']}", slot["pid"])
    # Another life than the one that was asked for, or none yet and a reason why.
    if slot["restarts"] > was.restarts + 1 or reason.startswith("failed to start") or _waits_its_time(slot):
        return Fate("failed", reason)
    # The latter is what a schedule says.
    return Fate("waits", reason) if "waits for" in reason or "next run at" in reason else None


def _waits_its_time(slot: dict[str, Any]) -> bool:
    """Whether it waits for its restart time, which follows no exit that was asked for."""
    return slot["state"] == "waiting_restart" and slot["restart_at"] is not None and "restarts after" in slot["reason"]


def _fallen(key: str, pid: int | None, status: dict[str, Any]) -> Fate | None:
    slot = _find(key, status["slots"])
    if slot is not None and slot["pid"] == pid:
        return None
    found = slot or _find(key, status["finished"]) or {}
    last_exit = found.get("last_exit") or {}
    if slot is None and last_exit.get("code") == 0:
        return None  # it has done its work
    return Fate("failed", str(last_exit.get("reason") or found.get("reason") or "it has ended"))


def _find(key: str, entries: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    return next((entry for entry in entries if answers_to(entry, key)), None)


def _key(slot: dict[str, Any]) -> str:
    return f"{slot['slot']}.{slot['generation']}"
