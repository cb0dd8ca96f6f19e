"""Growth: what one more worker costs when there are 100, and when there are 4000.

    python -m benchmarks growth

One host, to which workers are added in steps. Each figure is of the workers of one step, so a
flat row says that the thousandth costs what the first did. The plot is docs/growth.svg.
"""

from __future__ import annotations

import resource
import time
from itertools import pairwise
from typing import Final

from benchmarks.figures import Figure, figure, grouped
from benchmarks.peers.bgworker import BgWorker
from benchmarks.processes import Activity, activity, memory, name_of
from benchmarks.run import Run

TITLE: Final = "Growth"
_STEPS: Final = (0, 100, 200, 500, 1000, 2000, 4000)
#: Descriptors that the host needs for one worker, as it counts them, and those it needs anyway.
_DESCRIPTORS: Final = 4
_SPARE_DESCRIPTORS: Final = 1024
#: For all steps.
DESCRIPTORS: Final = _STEPS[-1] * _DESCRIPTORS + _SPARE_DESCRIPTORS
#: Seconds without which the host would still be tidying up.
_REST: Final = 1.0


def measure(run: Run) -> list[Figure]:
    """Grow, as far as the limit of descriptors lets a host grow."""
    limit = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE_DESCRIPTORS) // _DESCRIPTORS
    steps = [step for step in _STEPS if step <= min(limit, 500 if run.quick else limit)]
    if len(steps) < len(_STEPS) and not run.quick:
        run.skip(f"{_STEPS[-1]} workers", f"the limit of descriptors allows {limit}")
    figures: list[Figure] = []
    with run.up(BgWorker, 0, steps[-1]) as way:
        for before, count in pairwise(steps):
            # A spare is nobody yet, and one of the workers a moment later.
            own = [pid for pid in way.own() if "spare" not in name_of(pid)]
            spent, held = activity(own), _held(own)
            begin = time.monotonic_ns()
            way.launch_all(range(before, count))
            arrivals = way.beacon.wait_all(range(before, count))
            took = (max(arrival.at for arrival in arrivals.values()) - begin) / 1e6
            time.sleep(_REST)
            figures += _step(f"{count} workers", count - before, took, _since(spent, own), _held(own) - held)
            some = [arrival.pid for arrival in arrivals.values()][:20]
            figures.append(figure("private memory of a worker", "MB", f"{count} workers", [memory(pid).private for pid in some]))
    return grouped(figures)


def _step(way: str, workers: int, took: float, seconds: float, megabytes: float) -> list[Figure]:
    return [
        figure("time until up, of each worker added", "ms", way, [took / workers]),
        figure("processor time of host and helpers, of each worker added", "ms", way, [seconds * 1000 / workers]),
        figure("memory of host and helpers, of each worker added", "kB", way, [megabytes * 1000 / workers]),
    ]


def _since(before: Activity, pids: list[int]) -> float:
    return activity(pids).seconds - before.seconds


def _held(pids: list[int]) -> float:
    return sum(memory(pid).private for pid in pids)
