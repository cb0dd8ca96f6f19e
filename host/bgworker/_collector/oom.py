"""Whether the kernel's OOM killer was at work: its counters, read before and after.

A process that it ends looks like any other that got SIGKILL; only a counter tells: that of our
control group (memory.events of version 2, memory.oom_control of version 1), else that of the
whole system (/proc/vmstat). None of them says who was killed, so what comes of it is a hint.
Only ``history`` uses this room.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import Final

_COUNT: Final = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


class OomCounter:
    """The counter of kills, and where it stood.

    Args:
        paths: Files with a line ``oom_kill N``; the first that has one is used.
    """

    def __init__(self, paths: Iterable[str] | None = None) -> None:
        self._path = ""
        self._last: int | None = None
        for path in _candidates() if paths is None else paths:
            if (count := _read(path)) is not None:
                self._path, self._last = path, count
                return

    def has_killed(self) -> bool | None:
        """Whether somebody was killed since the last call, or the start; None where that cannot be known."""
        if self._last is None:
            return None
        count = _read(self._path)
        if count is None:  # the control group has been taken away from under us
            return None
        before, self._last = self._last, count
        return count > before


def _candidates() -> Iterator[str]:
    """Yield where the counters of our control groups may be, and that of the system."""
    try:
        with open("/proc/self/cgroup") as file:
            lines = file.read().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        group = group.strip("/")
        if not controllers:
            yield os.path.join("/sys/fs/cgroup", group, "memory.events")
            # In a container the path may be that of the machine outside.
            yield "/sys/fs/cgroup/memory.events"
        elif "memory" in controllers.split(","):
            yield os.path.join("/sys/fs/cgroup/memory", group, "memory.oom_control")
            yield "/sys/fs/cgroup/memory/memory.oom_control"
    yield "/proc/vmstat"


def _read(path: str) -> int | None:
    try:
        with open(path) as file:
            match = _COUNT.search(file.read())
    except (OSError, ValueError):
        return None
    return int(match.group(1)) if match is not None else None
