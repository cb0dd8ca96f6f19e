"""Logs: how fast one worker's output is captured into its file, whether all of it arrives, and what that costs whom.

    python -m benchmarks logs

One worker prints numbered lines of 100 bytes as fast as it can. The clock stops when the file
holds the last of them. Each line that is missing, and each that is there twice, is counted.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import time
from pathlib import Path
from typing import Any, Final

import bgworker
from benchmarks import line_writer
from benchmarks.figures import Figure, figure
from benchmarks.harness import DEADLINE
from benchmarks.peers.bgworker import BgWorker
from benchmarks.peers.supervisord import Supervisord
from benchmarks.peers.way import Way
from benchmarks.processes import activity
from benchmarks.run import Run

TITLE: Final = "Log capture"
_LINE: Final = 100
_NUMBER: Final = re.compile(rb"(?:^|\s)(\d{9}) x{89}$", re.MULTILINE)


class _Writing(BgWorker):
    """Its worker is the writer."""

    function = "write_lines"
    # supervisord puts a file aside at 50 MB, which this does not reach; nor should ours.
    host = "log_rotation_size = 0"
    lines = 0

    def worker(self, number: int) -> bgworker.BackgroundWorker:
        argument: list[Any] = [str(self.beacon.path), number, self.lines]
        return dataclasses.replace(super().worker(number), bgw_main_arg=argument)


class _SupervisedWriting(Supervisord):
    """The same lines under supervisord."""

    lines = 0

    def prepare(self, static: int, dynamic: int) -> None:
        self.program = f"{sys.executable} -S {Path(line_writer.__file__)} {self.beacon.path} %(process_num)d {self.lines}"
        super().prepare(static, dynamic)


def measure(run: Run) -> list[Figure]:
    """Print, wait and count, three times each in turn."""
    lines = 200_000 if run.quick else 400_000
    kinds: list[tuple[type[Way], type[Way]]] = [(BgWorker, _Writing), (Supervisord, _SupervisedWriting)]
    found: dict[tuple[str, str, str], list[float]] = {}
    for _ in run.rounds(1 if run.quick else 3):
        for general, kind in kinds:
            if general not in run.kinds:
                continue
            with run.guarded(kind.name):
                kind.lines = lines  # type: ignore[attr-defined]
                for (name, unit), value in _once(run, kind, lines).items():
                    found.setdefault((name, unit, kind.name), []).append(value)
    return [figure(name, unit, way, samples) for (name, unit, way), samples in found.items()]


def _once(run: Run, kind: type[Way], lines: int) -> dict[tuple[str, str], float]:
    with run.up(kind, 0, 1) as way:
        own = way.own()
        host, rest = own[:1], own[1:]
        before = activity(host), activity(rest)
        way.launch(0)
        begin = way.beacon.wait(0).at
        tail = f"{lines - 1:09} ".encode()
        end = _until_written(way.directory, tail)
        megabytes = lines * _LINE / 1e6
        cost = [(activity(pids).seconds - was.seconds) * 1000 / megabytes for pids, was in zip((host, rest), before, strict=True)]
        numbers = [int(number) for path in _files(way.directory) for number in _NUMBER.findall(path.read_bytes())]
        return {
            ("captured", "MB/s"): megabytes / ((end - begin) / 1e9),
            ("lines lost or doubled", ""): float(lines - len(set(numbers)) + len(numbers) - len(set(numbers))),
            ("processor time of the host", "ms per MB"): cost[0],
            ("processor time of its helpers", "ms per MB"): cost[1],
        }


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*.log*") if path.is_file() and path.stat().st_size > _LINE * 1000]


def _until_written(directory: Path, tail: bytes) -> int:
    """Return when the last line was found in a file; looked for often, which costs this process alone."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        for path in _files(directory):
            with path.open("rb") as file:
                file.seek(-min(path.stat().st_size, 4096), 2)
                if tail in file.read():
                    return time.monotonic_ns()
        time.sleep(0.002)
    raise TimeoutError("the last line never arrived")
