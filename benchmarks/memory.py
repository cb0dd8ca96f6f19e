"""Memory: of one idle worker, and of a whole tree at rest with two workers that import psycopg.

    python -m benchmarks memory

One way at a time, because processes of two ways would share pages. PSS is a process's memory
with shared pages divided by those who share them; private is what nobody else has. The small
workers of peers are a bare ``python -S``; bgworker's have psycopg and both plugins in memory.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks import psycopg_worker
from benchmarks.figures import Figure, figure, grouped
from benchmarks.harness import ROOT
from benchmarks.peers.bgworker import BgWorker
from benchmarks.peers.supervisord import Supervisord
from benchmarks.peers.way import Way
from benchmarks.processes import below, memory
from benchmarks.run import Run
from bgworker.testing import RunningHost

TITLE: Final = "Memory"
_WORKERS: Final = 50
#: Seconds until a tree that has just started is at rest.
_REST: Final = 2.0
_TREE: Final = "whole tree at rest with two psycopg workers, PSS"

_CONFIGURATION: Final = """
[host]
shared_preload_libraries = ["benchmarks.psycopg_worker"]
python_path = ["{root}"]
"""
_WORKER: Final = """
[[worker]]
bgw_name = "w{number}"
bgw_library_name = "benchmarks.psycopg_worker"
bgw_function_name = "main"
bgw_main_arg = ["{path}", {number}]
"""


class _TwoWorkers(BgWorker):
    """A host with nothing else, as somebody has it who needs two workers."""

    def prepare(self, static: int, dynamic: int) -> None:
        text = _CONFIGURATION.format(root=ROOT)
        text += "".join(_WORKER.format(number=number, path=self.beacon.path) for number in range(static))
        self.running = RunningHost(self.directory, text)


class _SupervisedTwo(Supervisord):
    """The same two under supervisord."""

    def prepare(self, static: int, dynamic: int) -> None:
        self.program = f"{sys.executable} {Path(psycopg_worker.__file__)} {self.beacon.path} %(process_num)d"
        super().prepare(static, dynamic)


def measure(run: Run) -> list[Figure]:
    """Look at the workers of each way, then at the two trees."""
    figures: list[Figure] = []
    for kind in run.kinds:
        with run.guarded(kind.name), run.up(kind, 0, _WORKERS) as way:
            way.launch_all(range(_WORKERS))
            pids = [arrival.pid for arrival in way.beacon.wait_all(range(_WORKERS)).values()]
            time.sleep(_REST)
            found = [memory(pid) for pid in pids]
            own = sum(memory(pid).pss for pid in way.own() if pid != os.getpid())
            figures.append(figure("PSS of an idle worker", "MB", way.name, [each.pss for each in found]))
            figures.append(figure("private memory of an idle worker", "MB", way.name, [each.private for each in found]))
            figures.append(figure(f"the supervisor's own processes with {_WORKERS} workers, PSS", "MB", way.name, [own]))
    trees: list[tuple[type[Way], type[Way]]] = [(BgWorker, _TwoWorkers), (Supervisord, _SupervisedTwo)]
    for general, kind in trees:
        if general in run.kinds:
            with run.guarded(kind.name), run.up(kind, 2) as way:
                arrivals = way.beacon.wait_all(range(2))
                time.sleep(_REST)
                tree = {*way.own(), *below(*(arrival.pid for arrival in arrivals.values()))}
                figures.append(figure(_TREE, "MB", way.name, [sum(memory(pid).pss for pid in tree)]))
    return grouped(figures)
