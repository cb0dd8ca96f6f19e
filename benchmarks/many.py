"""Many: how long 200 and 1000 workers take to be up, and to be gone again.

    python -m benchmarks many

Up: from the first request to the first line of the last worker. Stop: from the supervisor's
being told to stop everything until the last worker's process has ended; what the supervisor or
a database does after that is not counted.
"""

from __future__ import annotations

import time
from typing import Final

from benchmarks.figures import Figure, figure
from benchmarks.peers.forks import ForkServer
from benchmarks.peers.way import Way
from benchmarks.processes import End
from benchmarks.run import Run

TITLE: Final = "Many workers"


def measure(run: Run) -> list[Figure]:
    """Start and stop 200 of each way in turn, twice, then 1000 once."""
    figures: list[Figure] = []
    for count, rounds in ((200, 2), (1000, 1)):
        # Of the two that are left out a thousand say nothing more, and take a minute: pm2 stops one after the other.
        kinds = [kind for kind in run.kinds if count == 200 or not (kind is ForkServer or kind.slow_to_stop)]
        ups: dict[str, list[float]] = {}
        stops: dict[str, list[float]] = {}
        for number in run.rounds(rounds):
            for kind in kinds:
                if number and kind.slow_to_stop:
                    continue
                if run.is_late:
                    run.skip(kind.name, f"{count} workers left out, the question takes too long on this machine")
                    continue
                with run.guarded(kind.name):
                    up, stop = _once(run, kind, count)
                    ups.setdefault(kind.name, []).append(up)
                    stops.setdefault(kind.name, []).append(stop)
        figures += [figure(f"{count} workers up", "s", way, samples) for way, samples in ups.items()]
        figures += [figure(f"stop {count}", "s", way, samples) for way, samples in stops.items()]
    return figures


def _once(run: Run, kind: type[Way], count: int) -> tuple[float, float]:
    with run.up(kind, 0, count) as way:
        begin = time.monotonic_ns()
        way.launch_all(range(count))
        arrivals = way.beacon.wait_all(range(count))
        up = (max(arrival.at for arrival in arrivals.values()) - begin) / 1e9
        end = End(arrival.pid for arrival in arrivals.values())
        begin = time.monotonic_ns()
        way.stop()
        if not end.wait():
            end.close()
            raise TimeoutError("the workers did not end")
        return up, (time.monotonic_ns() - begin) / 1e9
