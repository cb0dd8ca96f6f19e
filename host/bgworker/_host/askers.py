"""Who asked for the exit of a worker: remembered from the request until the exit is told, for history.jsonl.

The machine knows what was asked and words it (``Exit.asked``); this room adds the person or
the program. Decides nothing. Used by ``news``, filled in by ``requests`` and ``reload``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bgworker._core import reasons
from bgworker._host.callers import Caller
from bgworker._spec import printable

#: Who is behind a cause that came with no request: the host's own rules. What is not named here is "host".
_BY_RULE: Final = {
    reasons.BY_OPERATOR: "operator",
    reasons.BY_HANDLE: "handle",
    reasons.BY_SCALE: "operator",
    reasons.BY_SHUTDOWN: "shutdown",
    reasons.BY_RESTART: "operator",
    reasons.BY_REPLACEMENT: "reload",
}
#: The same for causes that name somebody, by how they begin.
_BY_PREFIX: Final = (("reinitialised: ", "crash"), ("stopped because the database", "database"))

Key = tuple[int, int]


class Askers:
    """The latest request that concerns each registration, and the one that concerns them all."""

    def __init__(self) -> None:
        self._latest: dict[Key, dict[str, Any]] = {}
        self._shutdown: dict[str, Any] = {}

    def carry(self) -> dict[str, Any]:
        """Return what is remembered, as JSON values."""
        return {"latest": [[key, asker] for key, asker in self._latest.items()], "shutdown": self._shutdown}

    def resume(self, carried: Mapping[str, Any]) -> None:
        """Take back what ``carry`` has told of."""
        self._latest = {(int(slotno), int(generation)): dict(asker) for (slotno, generation), asker in carried["latest"]}
        self._shutdown = dict(carried["shutdown"])

    def note(self, key: Key, caller: Caller) -> None:
        """Remember who asked that this registration's process ends."""
        self._latest[key] = _describe(caller)

    def note_reload(self, key: Key) -> None:
        """Remember that a reload found this registration no longer configured."""
        self._latest[key] = {"who": "reload"}

    def note_shutdown(self, caller: Caller) -> None:
        """Remember who asked for the shutdown; a signal names nobody."""
        self._shutdown = _describe(caller)

    def of(self, key: Key, asked: str) -> dict[str, Any] | None:
        """Return who asked for an exit that has come; None for one that nobody asked for.

        Args:
            key: Slot and generation.
            asked: The machine's words for it, or empty.
        """
        latest = self._latest.pop(key, {})
        if not asked:
            return None
        if asked == reasons.BY_SHUTDOWN:
            # Whoever asked for the worker before was overtaken.
            return {**self._shutdown, "who": "shutdown", "what": asked}
        if asked in (reasons.BY_OPERATOR, reasons.BY_HANDLE, reasons.BY_SCALE, reasons.BY_RESTART) and latest:
            return {**latest, "what": asked}
        who = _BY_RULE.get(asked) or next((who for start, who in _BY_PREFIX if asked.startswith(start)), "host")
        return {"who": who, "what": printable(asked)}

    def forget(self, key: Key) -> None:
        """Drop what is remembered of a registration that is over."""
        self._latest.pop(key, None)


def _describe(caller: Caller) -> dict[str, Any]:
    if caller.worker is not None:
        life = caller.worker.life
        return {"who": "worker", "worker": f"{life.slotno}.{life.generation}", "pid": caller.pid}
    return {"who": "operator", "uid": caller.uid, "pid": caller.pid}
