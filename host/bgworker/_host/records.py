"""What the host says about itself and its workers: log lines and history to the collector, events to subscribers.

The host writes no file. While the collector is away its messages wait here, bounded; if no
collector ever comes, they go to standard error at the end.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from bgworker._control.protocol import Message

_MAX_WAITING: Final = 10_000


class Records:
    """Keeps the order of everything that goes to the collector.

    Args:
        send: Sends to the collector; False while there is none.
    """

    def __init__(self, send: Callable[[Message], bool]) -> None:
        self._send = send
        self._waiting: deque[Message] = deque()
        self._lost = 0

    def carry(self) -> dict[str, Any]:
        """Return what waits for a collector."""
        return {"waiting": list(self._waiting), "lost": self._lost}

    def resume(self, carried: Mapping[str, Any]) -> None:
        """Take back what ``carry`` has told of; it comes before whatever has been said since."""
        self._waiting.extendleft(reversed(carried["waiting"]))
        self._lost += int(carried["lost"])

    def log(self, level: str, message: str, detail: str = "", hint: str = "") -> None:
        """Write one entry of the host's log. Levels are PostgreSQL's, and so is the threshold: DEBUG is not kept."""
        if level == "DEBUG":
            return
        self.put({"type": "log", "level": level, "message": message, "detail": detail, "hint": hint, "at": time.time()})

    def history(self, record: dict[str, Any]) -> None:
        """Append one record to history.jsonl."""
        self.put({"type": "history", "record": record})

    def put(self, message: Message) -> None:
        """Send to the collector now, or once there is one."""
        if self._waiting or not self._send(message):
            if len(self._waiting) >= _MAX_WAITING:
                self._waiting.popleft()
                self._lost += 1
            self._waiting.append(message)

    def flush(self) -> None:
        """Send what waits, in order; called when a collector has come."""
        if self._lost:
            lost, self._lost = self._lost, 0
            self._waiting.append(
                {
                    "type": "log",
                    "level": "WARNING",
                    "message": f"{lost} log entries lost: no collector",
                    "detail": "",
                    "hint": "",
                    "at": time.time(),
                }
            )
        while self._waiting and self._send(self._waiting[0]):
            self._waiting.popleft()

    def flush_to_stderr(self) -> None:
        """Print what no collector took; the last resort at the end of a host's life."""
        for message in self._waiting:
            if message["type"] != "log":
                continue
            for key, label in (("message", message["level"]), ("detail", "DETAIL"), ("hint", "HINT")):
                if message[key]:
                    print(f"{label}:  {message[key]}", file=sys.stderr)  # noqa: T201 - nobody else is left to say it
        self._waiting.clear()
