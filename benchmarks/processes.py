"""What the kernel says of processes: memory, processor time, context switches, children, and their end.

Linux only, as the peers' comparison is. Processes are named by pid and ended by pid.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import DEADLINE
from bgworker._process import prctl


@dataclass(frozen=True)
class Memory:
    """What a process holds, in MB (10**6 bytes)."""

    #: Its share: what is shared is divided by those who share it.
    pss: float
    #: What nobody else has.
    private: float


@dataclass(frozen=True)
class Activity:
    """What processes have done so far."""

    #: Seconds of processor time.
    seconds: float
    #: Context switches, voluntary or not: with none of them nothing woke up.
    switches: int


def memory(pid: int) -> Memory:
    """Return a process's memory."""
    values = {"Pss": 0, "Private_Clean": 0, "Private_Dirty": 0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        key, _, rest = line.partition(":")
        if key in values:
            values[key] = int(rest.split()[0]) * 1024
    return Memory(values["Pss"] / 1e6, (values["Private_Clean"] + values["Private_Dirty"]) / 1e6)


def activity(pids: Iterable[int]) -> Activity:
    """Return the processor time and context switches of processes; one that has gone counts nothing."""
    seconds, switches = 0.0, 0
    for pid in pids:
        try:
            seconds += int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        switches += sum(int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line)
    return Activity(seconds, switches)


def below(*roots: int) -> list[int]:
    """Return these processes and all that descend from them."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parent = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry))
    found = list(dict.fromkeys(roots))
    for pid in found:
        found += [child for child in children.get(pid, []) if child not in found]
    return found


def name_of(pid: int) -> str:
    """Return a process's command line, or nothing if it has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


class End:
    """Watches processes until they have ended, zombies included among the ended; pids that are given again do not mislead it."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._fds: dict[int, int] = {}
        for pid in pids:
            try:
                self._fds[os.pidfd_open(pid)] = pid
            except ProcessLookupError:
                pass

    def wait(self, timeout: float = DEADLINE) -> bool:
        """Wait until all have ended; False when some have not."""
        poll = select.poll()
        for fd in self._fds:
            poll.register(fd, select.POLLIN)
        deadline = time.monotonic() + timeout
        while self._fds:
            ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if not ready:
                return False
            for fd, _ in ready:
                poll.unregister(fd)
                os.close(fd)
                self._reap(self._fds.pop(fd))
        return True

    def kill(self) -> list[str]:
        """Kill those that are left and return what they were."""
        left = [name_of(pid) for pid in self._fds.values()]
        for fd in self._fds:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        self.wait(10.0)
        return left

    def close(self) -> None:
        """Give the descriptors back."""
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    @staticmethod
    def _reap(pid: int) -> None:
        # Orphans of a peer become ours, because the runner is a subreaper; a subprocess's own wait() copes with this.
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass


def adopt_orphans() -> None:
    """Make this process the one that orphans of its descendants fall to, so that none is lost."""
    prctl.set_child_subreaper()
