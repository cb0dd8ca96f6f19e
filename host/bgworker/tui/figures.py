"""Processor time and memory of workers: the only file of the view that asks the machine.

Imports psutil, which status on the wire never needs: figures belong to views, not to facts.
A process that has gone, or that may not be looked at, has no figures; that is no error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import psutil


class Figures(NamedTuple):
    """What one process uses."""

    #: Share of one processor, in percent.
    cpu: float
    #: Resident bytes; pages shared with the loader count in each worker.
    memory: int


class Meter:
    """Measures processes again and again; the share is that of the time since the last measurement.

    The first measurement of a process gives its share over its whole life, as ps does.
    """

    def __init__(self) -> None:
        self._processes: dict[int, psutil.Process] = {}

    def measure(self, pids: Iterable[int], now: float) -> Mapping[int, Figures]:
        """Return the figures of those of the processes that can be looked at.

        Args:
            pids: The processes; the others are forgotten.
            now: Seconds since the epoch.
        """
        wanted = set(pids)
        for gone in self._processes.keys() - wanted:
            del self._processes[gone]
        return {pid: figures for pid in wanted if (figures := self._one(pid, now)) is not None}

    def _one(self, pid: int, now: float) -> Figures | None:
        try:
            known = self._processes.get(pid)
            # is_running() also tells a process from another that got its pid later.
            if known is None or not known.is_running():
                known = self._processes[pid] = psutil.Process(pid)
                known.cpu_percent()  # starts the interval; always 0.0 the first time
                times = known.cpu_times()
                life = now - known.create_time()
                cpu = 100 * (times.user + times.system) / life if life > 0.05 else 0.0
            else:
                cpu = known.cpu_percent()
            return Figures(max(0.0, cpu), known.memory_info().rss)
        except (psutil.Error, OSError):
            self._processes.pop(pid, None)
            return None
