"""Status: of one of 200 workers, of all of them, and as the command that a person types.

    python -m benchmarks status

The command's figure is a whole process, from its start to its end, its output read. The floor
of the first is one read of mapped memory, the floor of the last an interpreter that does nothing.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Final

from benchmarks.figures import FLOOR, Figure, figure
from benchmarks.harness import DEADLINE
from benchmarks.peers.forks import ForkServer, RawFork
from benchmarks.peers.postgresql import PostgreSQL, PostgreSQLConnected
from benchmarks.peers.way import Way, timed
from benchmarks.run import Run

TITLE: Final = "Status"
_WORKERS: Final = 200
_ONE: Final = "status of one of 200"
_ALL: Final = "status of all 200"
_COMMAND: Final = "status on the command line"


def measure(run: Run) -> list[Figure]:
    """Ask all ways in turn."""
    # A worker of PostgreSQL's that has no connection is in no view.
    kinds = [PostgreSQLConnected if kind is PostgreSQL else kind for kind in run.kinds if kind is not ForkServer]
    found: dict[tuple[str, str], list[float]] = {}
    numbers: dict[Way, int] = {}

    def begin(way: Way) -> None:
        way.launch_all(range(_WORKERS))
        arrivals = way.beacon.wait_all(range(_WORKERS))
        # PostgreSQL's views know a worker by its pid.
        numbers[way] = arrivals[100].pid if isinstance(way, PostgreSQL) else 100

    def take(number: int, name: str, way: Way, value: float) -> None:
        if number >= 0:
            found.setdefault((name, way.name), []).append(value)

    def calls(way: Way, number: int) -> None:
        if "one" in way.tells:
            take(number, _ONE, way, way.status_one(numbers[way]).ms / way.asks)
        if "all" in way.tells:
            take(number, _ALL, way, way.status_all().ms)

    def command(way: Way, number: int) -> None:
        line = [sys.executable, "-S", "-c", "pass"] if isinstance(way, RawFork) else way.command()
        if line:
            call = timed(lambda: subprocess.run(line, check=True, capture_output=True, timeout=DEADLINE))
            take(number, _COMMAND, way, call.ms)

    with run.fleet(kinds, _WORKERS, begin) as ways:
        time.sleep(1)
        run.alternate(ways, calls, 20 if run.quick else 100, budget=4)
        run.alternate(ways, command, 5 if run.quick else 20, budget=4)
    notes = {(_COMMAND, FLOOR): "on the command line, an interpreter that does nothing"}
    order = [_ONE, _ALL, _COMMAND]
    return [
        figure(name, "ms", way, samples, notes.get((name, way), ""))
        for (name, way), samples in sorted(found.items(), key=lambda item: order.index(item[0][0]))
    ]
