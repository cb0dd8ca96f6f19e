"""Launch: from the request to the first line of worker code, and until the launching call has returned with a pid.

    python -m benchmarks launching

Every way is up at once and they are asked in turn. The request is the moment before the call;
the first line is the clock that the worker reads before anything else. The second pair of
figures is with a database connection that has answered a query.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benchmarks.figures import Figure, figure
from benchmarks.peers.bgworker import BgWorker, BgWorkerConnected
from benchmarks.peers.postgresql import PostgreSQL, PostgreSQLConnected
from benchmarks.peers.way import Way
from benchmarks.run import WARM_UP, Run

TITLE: Final = "Launch"
_FIRST_LINE: Final = "request to first line of worker code"
_CALL: Final = "the launching call returns"
_CONNECTED: Final = "request to connection open"


class BgWorkerCold(BgWorker):
    """With no spare workers: each is born when it is asked for."""

    name = "bgworker, no spares"
    host = "spare_workers = 0"


def measure(run: Run) -> list[Figure]:
    """Compare all ways, then those that have a database connection."""
    kinds = list(run.kinds)
    if BgWorker in kinds:
        kinds.insert(1, BgWorkerCold)
    figures = _compare(run, kinds, (_FIRST_LINE, _CALL))
    connected = [kind for kind, plain in ((BgWorkerConnected, BgWorker), (PostgreSQLConnected, PostgreSQL)) if plain in run.kinds]
    if not run.quick:
        figures += _compare(run, connected, (_CONNECTED,))
    return figures


def _compare(run: Run, kinds: Sequence[type[Way]], names: tuple[str, ...]) -> list[Figure]:
    rounds = 20 if run.quick else 40
    first_lines: dict[str, list[float]] = {}
    calls: dict[str, list[float]] = {}

    def sample(way: Way, number: int) -> None:
        call = way.launch(number + WARM_UP)
        arrival = way.beacon.wait(number + WARM_UP)
        if number >= 0:
            first_lines.setdefault(way.name, []).append((arrival.at - call.begin) / 1e6)
            calls.setdefault(way.name, []).append(call.ms)

    with run.fleet(kinds, rounds + WARM_UP) as ways:
        notes = {way.name: way.note for way in ways}
        run.alternate(ways, sample, rounds)
    return [
        figure(name, "ms", way, samples, notes[way])
        for name, found in zip(names, (first_lines, calls), strict=False)
        for way, samples in found.items()
    ]
