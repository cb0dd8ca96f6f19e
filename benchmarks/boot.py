"""Boot: from executing the supervisor to the first line of the last of 200 workers of its configuration.

python -m benchmarks boot
"""

from __future__ import annotations

import time
from typing import Final

from benchmarks.figures import Figure, figure
from benchmarks.peers.way import Way
from benchmarks.run import Run

TITLE: Final = "Boot"
_WORKERS: Final = 200


def measure(run: Run) -> list[Figure]:
    """Boot those ways that can be configured to have workers, in turn."""
    found: dict[str, list[float]] = {}
    for _ in run.rounds(3):
        for kind in run.kinds:
            if kind.has_static:
                with run.guarded(kind.name):
                    found.setdefault(kind.name, []).append(_once(run, kind))
    return [figure(f"exec to {_WORKERS} static workers ready", "s", way, samples) for way, samples in found.items()]


def _once(run: Run, kind: type[Way]) -> float:
    with run.made(kind, _WORKERS) as way:
        begin = time.monotonic_ns()
        way.spawn()
        arrivals = way.beacon.wait_all(range(_WORKERS))
        return (max(arrival.at for arrival in arrivals.values()) - begin) / 1e9
