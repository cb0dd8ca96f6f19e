"""Idle: processor time and context switches while nothing happens.

    python -m benchmarks idle

All ways wait beside each other, with 200 workers each; what they do is the kernel's account of
each process (schedstat, and the context switches of its status). A process that was never
switched to has never woken up. bgworker is also measured with 1000 workers and its embedded
PostgreSQL, whose own processes are not counted: they have timers of their own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from benchmarks.figures import Figure, figure, grouped
from benchmarks.peers.bgworker import BgWorker
from benchmarks.peers.forks import ForkServer
from benchmarks.peers.way import Way
from benchmarks.processes import activity, name_of
from benchmarks.run import Run

TITLE: Final = "Idle"
_WORKERS: Final = 200
#: Seconds until what has just started has gone to sleep.
_REST: Final = 5.0


class _Thousand(BgWorker):
    """With an embedded PostgreSQL."""

    name = "bgworker, 1000 workers and database"
    database = '[database]\nurl = "embedded"'

    def prepare(self, static: int, dynamic: int) -> None:
        super().prepare(static, 1000)


def _is_server(pid: int) -> bool:
    command = name_of(pid)
    return "/bin/postgres" in command or command.startswith("postgres:")


@dataclass(frozen=True)
class _Watched:
    way: Way
    own: list[int]
    workers: list[int]


def measure(run: Run) -> list[Figure]:
    """Wait with all of them."""
    seconds = 10 if run.quick else 60
    kinds = [kind for kind in run.kinds if kind is not ForkServer]
    if not run.quick:
        kinds.append(_Thousand)
    watched: dict[Way, _Watched] = {}

    def begin(way: Way) -> None:
        count = 1000 if isinstance(way, _Thousand) else _WORKERS
        way.launch_all(range(count))
        workers = [arrival.pid for arrival in way.beacon.wait_all(range(count)).values()]
        own = [pid for pid in way.own() if not (isinstance(way, _Thousand) and _is_server(pid))]
        watched[way] = _Watched(way, own, workers)

    figures: list[Figure] = []
    with run.fleet(kinds, _WORKERS, begin) as ways:
        time.sleep(_REST)
        before = {way: (activity(watched[way].own), activity(watched[way].workers)) for way in ways}
        time.sleep(seconds)
        for way in ways:
            own, workers = activity(watched[way].own), activity(watched[way].workers)
            spent = own.seconds + workers.seconds - sum(each.seconds for each in before[way])
            figures.append(figure(f"processor time in {seconds} s", "s", way.name, [spent]))
            switches = float(own.switches - before[way][0].switches)
            figures.append(figure(f"context switches of the supervisor in {seconds} s", "", way.name, [switches]))
            switches = float(workers.switches - before[way][1].switches)
            figures.append(figure(f"context switches of all workers in {seconds} s", "", way.name, [switches]))
    return grouped(figures)
