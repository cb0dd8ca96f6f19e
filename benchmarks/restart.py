"""Restart: from a worker's death by SIGKILL to the first line of its replacement, with no restart delay asked for.

    python -m benchmarks restart

Each sample kills another worker, so that no guard against loops has a say. The second row is an
end with exit code 1, which for bgworker and PostgreSQL is an error and no crash: there SIGTERM
comes from outside, and the worker ends by itself.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Final

from benchmarks.figures import Figure, figure
from benchmarks.peers.bgworker import BgWorker
from benchmarks.peers.postgresql import PostgreSQL
from benchmarks.peers.way import Way
from benchmarks.run import WARM_UP, Run

TITLE: Final = "Restart"
_KILLED: Final = "kill -9 to replacement running"
_FAILED: Final = "SIGTERM from outside, exit code 1, to replacement running"


def measure(run: Run) -> list[Figure]:
    """Kill the workers of all ways in turn, then have those of two end by themselves."""
    kinds = [kind for kind in run.kinds if kind.restarts]
    figures = _compare(run, kinds, signal.SIGKILL, _KILLED)
    if not run.quick:
        figures += _compare(run, [kind for kind in (BgWorker, PostgreSQL) if kind in kinds], signal.SIGTERM, _FAILED)
    return figures


def _compare(run: Run, kinds: list[type[Way]], signum: signal.Signals, name: str) -> list[Figure]:
    count = (20 if run.quick else 30) + WARM_UP
    pids: dict[Way, dict[int, int]] = {}
    found: dict[str, list[float]] = {}

    def sample(way: Way, number: int) -> None:
        victim = number + WARM_UP
        begin = time.monotonic_ns()
        os.kill(pids[way][victim], signum)
        replacement = way.beacon.wait(victim)
        if number >= 0:
            found.setdefault(way.name, []).append((replacement.at - begin) / 1e6)
        if way.crash_takes_all and signum == signal.SIGKILL:
            others = way.beacon.wait_all(set(pids[way]) - {victim})
            pids[way].update({other: arrival.pid for other, arrival in others.items()})

    def begin(way: Way) -> None:
        way.launch_all(range(count))
        pids[way] = {number: arrival.pid for number, arrival in way.beacon.wait_all(range(count)).items()}

    with run.fleet(kinds, count, begin) as ways:
        notes = {way.name: way.note for way in ways}
        # Nobody is young any more: supervisors treat a quick death differently.
        time.sleep(2)
        run.alternate(ways, sample, count - WARM_UP)
    return [figure(name, "ms", way, samples, notes[way]) for way, samples in found.items()]
