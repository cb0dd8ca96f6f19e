"""What the benchmarks share: a host to measure, peers that are told what to do, figures, and how they are printed.

A benchmark compares two ways of doing one thing, in alternating rounds of one run, because
figures of two runs on a shared machine say more about the machine than about the ways.
Nothing here is imported by the package or its tests; no test asserts a time.
"""

from __future__ import annotations

import json
import mmap
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

import psycopg

from bgworker.testing import RunningHost

ROOT: Final = Path(__file__).parent.parent
#: Longest wait for any answer, in seconds.
DEADLINE: Final = 120.0
#: Pages that are touched to know what one costs.
_PAGES: Final = 4096


@dataclass(frozen=True)
class Result:
    """One thing measured in both ways."""

    name: str
    #: What the figures count: "us" (less is better) or "per s" (more is better).
    unit: str
    ours: float
    psycopg: float
    #: The 99th percentiles; None for a rate.
    ours_p99: float | None = None
    psycopg_p99: float | None = None

    @property
    def ratio(self) -> float:
        """Ours divided by psycopg's."""
        return self.ours / self.psycopg


def latencies(name: str, ours: Sequence[float], theirs: Sequence[float]) -> Result:
    """Return medians and 99th percentiles of nanoseconds, as microseconds."""
    medians = [statistics.median(values) / 1000 for values in (ours, theirs)]
    last = [statistics.quantiles(values, n=100)[98] / 1000 for values in (ours, theirs)]
    return Result(name, "us", medians[0], medians[1], last[0], last[1])


def rates(name: str, ours: Sequence[float], theirs: Sequence[float]) -> Result:
    """Return the medians of rounds."""
    return Result(name, "per s", statistics.median(ours), statistics.median(theirs))


class Peer:
    """A process that measures on command: one JSON line for each order and each answer."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = connection.makefile("rb")

    @classmethod
    def call(cls, path: str) -> Self:
        """Connect to the benchmark, from the process that is to be measured."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        return cls(connection)

    def tell(self, **order: Any) -> None:
        """Send one line."""
        self._connection.sendall(json.dumps(order).encode() + b"\n")

    def hear(self) -> dict[str, Any] | None:
        """Return the next line; None when the other side has gone."""
        line = self._lines.readline()
        answer: dict[str, Any] | None = json.loads(line) if line else None
        return answer


class Switchboard:
    """Where peers call."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(path)
        self._socket.listen()
        self._socket.settimeout(DEADLINE)
        self._peers: dict[str, Peer] = {}

    def peer(self, name: str) -> Peer:
        """Return the peer that introduces itself with this name."""
        while name not in self._peers:
            connection, _address = self._socket.accept()
            connection.settimeout(DEADLINE)
            peer = Peer(connection)
            self._peers[(peer.hear() or {})["name"]] = peer
        return self._peers[name]


@contextmanager
def embedded_host(configuration: str) -> Iterator[RunningHost]:
    """Run a host with an embedded PostgreSQL as its users get it, fsync included, in a directory that is removed afterwards."""
    directory = tempfile.mkdtemp(prefix="bgworker-bench-")
    os.chmod(directory, 0o711)  # PostgreSQL's own user must be able to pass
    host = RunningHost(Path(directory), configuration.format(root=ROOT, directory=directory))
    try:
        yield host
    finally:
        host.close()
        shutil.rmtree(directory, ignore_errors=True)


def machine_facts() -> dict[str, Any]:
    """Return what all figures depend on."""
    names = [
        line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
        "an interpreter": f"{_interpreter_ms():.1f} ms",
        "a page of memory": f"{_page_us():.1f} us",
    }


def _interpreter_ms() -> float:
    """Return how long the barest interpreter takes to start and end, in milliseconds."""
    took = []
    for _ in range(15):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)
        took.append(time.perf_counter() - begin)
    return statistics.median(took) * 1e3


def _page_us() -> float:
    """Return what the first touch of a page costs, in microseconds: most of a birth are those (fork(2), copy on write)."""
    took = []
    for _ in range(5):
        with mmap.mmap(-1, _PAGES * mmap.PAGESIZE) as memory:
            offsets = range(0, len(memory), mmap.PAGESIZE)
            begin = time.perf_counter()
            for offset in offsets:
                memory[offset] = 1
            took.append(time.perf_counter() - begin)
    return statistics.median(took) / _PAGES * 1e6


def machine(url: str) -> dict[str, Any]:
    """Return what the figures depend on, the server included."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT current_setting('server_version'), current_setting('fsync')").fetchone()
    assert row is not None
    return {
        **machine_facts(),
        "postgresql": row[0].split()[0],
        "fsync": row[1],
        "psycopg": f"{psycopg.__version__} ({psycopg.pq.__impl__})",
    }


def report(machine_facts: dict[str, Any], results: Sequence[Result], *, as_json: bool) -> str:
    """Return a table, or JSON."""
    if as_json:
        return json.dumps({"machine": machine_facts, "results": [{**asdict(r), "ratio": r.ratio} for r in results]}, indent=1)
    lines = [", ".join(f"{key} {value}" for key, value in machine_facts.items()), ""]
    lines.append(f"{'':44} {'':6} {'bgworker':>9} {'psycopg':>9} {'ratio':>6}   {'p99':>9} {'p99':>9}")
    for r in results:
        tail = "" if r.ours_p99 is None else f"   {r.ours_p99:9.0f} {r.psycopg_p99 or 0:9.0f}"
        lines.append(f"{r.name:44} {r.unit:6} {r.ours:9.0f} {r.psycopg:9.0f} {r.ratio:6.2f}{tail}")
    return "\n".join(lines)
