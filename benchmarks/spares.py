"""Spares: how soon the workers of a burst run, by how many processes are kept ready; what the default was chosen by.

    python -m benchmarks spares

The requests of a burst follow each other without waiting; between two bursts there is time to
make new spares. What a spare costs in memory stands in `memory`: that of an idle worker.
"""

from __future__ import annotations

import time
from typing import Final

from benchmarks.figures import Figure, figure, grouped
from benchmarks.peers.bgworker import BgWorker
from benchmarks.run import Run

TITLE: Final = "Spare workers"
_COUNTS: Final = (0, 1, 2, 4)
_BURSTS: Final = (1, 2, 4)
#: Seconds in which as many spares as there may be are made.
_REST: Final = 0.3


def _with(count: int) -> type[BgWorker]:
    return type(f"With{count}", (BgWorker,), {"name": f"{count} spares", "host": f"spare_workers = {count}"})


def measure(run: Run) -> list[Figure]:
    """Send bursts to one host after another."""
    rounds = 5 if run.quick else 8
    figures: list[Figure] = []
    for count in _COUNTS:
        with run.up(_with(count), 0, rounds * sum(_BURSTS)) as way:
            number = 0
            for burst in _BURSTS:
                took = []
                for _ in range(rounds):
                    time.sleep(_REST)
                    numbers = range(number, number + burst)
                    number += burst
                    begin = time.monotonic_ns()
                    way.launch_all(numbers)
                    arrivals = way.beacon.wait_all(numbers)
                    took.append((max(arrival.at for arrival in arrivals.values()) - begin) / 1e6)
                figures.append(figure(f"until the last of {burst} is at its first line", "ms", way.name, took))
    return grouped(figures)
