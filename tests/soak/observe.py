"""What the soak sees of a host from outside: its processes in /proc, its figures, how soon it answers.

Looks only; nothing here may act on the host. Imported by the soak alone.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bgworker.errors import HostError

if TYPE_CHECKING:
    from bgworker.testing import RunningHost

#: Seconds between two probes.
PROBE_INTERVAL = 0.05


@dataclass(frozen=True)
class Child:
    """One child of the host."""

    pid: int
    state: str
    command: str

    @property
    def is_zombie(self) -> bool:
        """Whether it has ended and was not reaped yet."""
        return self.state == "Z"

    @property
    def is_spare(self) -> bool:
        """Whether it waits for a worker that it could be."""
        return self.command == "bgworker: spare"


def children_of(pid: int) -> list[Child]:
    """Return the children of a process, zombies included."""
    try:
        pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    found = []
    for child in map(int, pids):
        try:
            command = Path(f"/proc/{child}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        found.append(Child(child, state, command))
    return found


def helper(host_pid: int, name: str) -> int | None:
    """Return the pid of the host's loader, collector or database process, by its title; None while there is none."""
    return next((c.pid for c in children_of(host_pid) if c.command.startswith(f"bgworker: {name}") and not c.is_zombie), None)


def postgres(host_pid: int) -> int | None:
    """Return the pid of the embedded PostgreSQL."""
    return next((c.pid for c in children_of(host_pid) if "postgres" in c.command.split(" ")[0] and not c.is_zombie), None)


@dataclass(frozen=True)
class Sample:
    """The host's own figures at one time."""

    at: float
    private_kib: int
    descriptors: int
    threads: int


def sample(pid: int) -> Sample | None:
    """Return what the host costs now; None if it has gone."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        private = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))
        return Sample(time.monotonic(), private, len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task")))
    except OSError:
        return None


def slope_per_hour(samples: list[Sample]) -> float | None:
    """Return the growth of private memory in KiB an hour: least squares over the last two thirds, after the warm-up.

    None when they cover less than five minutes: an hour is not to be told from that.
    """
    used = samples[len(samples) // 3 :]
    if not used or used[-1].at - used[0].at < 200:
        return None
    mean_x = sum(s.at for s in used) / len(used)
    mean_y = sum(s.private_kib for s in used) / len(used)
    spread = sum((s.at - mean_x) ** 2 for s in used)
    return round(3600 * sum((s.at - mean_x) * (s.private_kib - mean_y) for s in used) / spread, 1)


@dataclass
class Probe:
    """An honest client that asks for the status again and again, and remembers how long each answer took."""

    host: RunningHost
    latencies: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _is_over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to ask."""
        self._is_over.clear()
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.join(30)
            self._thread = None

    def _run(self) -> None:
        while not self._is_over.is_set():
            try:
                with self.host.client() as client:
                    while not self._is_over.wait(PROBE_INTERVAL):
                        began = time.monotonic()
                        client.status()
                        self.latencies.append(time.monotonic() - began)
            except (HostError, OSError) as error:
                if not self._is_over.is_set():
                    self.failures.append(f"the honest client was not served: {error}")
                    self._is_over.wait(0.2)
