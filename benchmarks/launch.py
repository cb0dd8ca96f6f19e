"""Launch, restart, many workers, memory, status: a host against raw os.fork from a Python of the same modules.

    python -m benchmarks.launch [--quick] [--json] [QUESTION...]

The questions are launch, cold, restart, many, memory and status. Each has an embedded
PostgreSQL, both plugins and psycopg in the loader, and output captured in files. Ways to do the
same thing take turns, and the first rounds are thrown away.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import DEADLINE, ROOT, Peer, Switchboard, embedded_host
from benchmarks.launch_peers import STAMP
from bgworker import BackgroundWorker, BackgroundWorkerHandle, BgwHandleStatus, Client
from bgworker.testing import RunningHost

_CONFIGURATION: Final = """
[host]
max_worker_processes = {slots}
spare_workers = {spares}
shared_preload_libraries = ["worker_spi", "notify_demo", "benchmarks.launch_peers"]
python_path = ["{{root}}"]
[database]
url = "embedded"

"""
_WORKER: Final = """[[worker]]
bgw_name = "idle {number}"
bgw_type = "idle"
bgw_library_name = "benchmarks.launch_peers"
bgw_function_name = "idle"
"""
#: Between two rounds, in seconds: what was used up is made anew by then, and everything sleeps.
_PAUSE: Final = 0.05
_WARM_UP: Final = 10


@dataclass(frozen=True)
class Figure:
    """One thing that was measured."""

    name: str
    unit: str
    median: float
    p99: float | None = None
    floor: float | None = None

    @property
    def ratio(self) -> float | None:
        """The median divided by that of raw fork."""
        return None if not self.floor else self.median / self.floor


def _figure(name: str, values: Sequence[float], floor: Sequence[float] = (), unit: str = "ms", scale: float = 1e6) -> Figure:
    values, floor = values[_WARM_UP:], floor[_WARM_UP:]
    p99 = statistics.quantiles(values, n=100)[98] / scale if len(values) > 1 else None
    return Figure(name, unit, statistics.median(values) / scale, p99, statistics.median(floor) / scale if floor else None)


class Stamps:
    """Where first lines are said."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        os.chmod(path, 0o666)
        self._socket.settimeout(DEADLINE)

    def next(self) -> tuple[int, int]:
        """Return the next first line's clock and pid."""
        clock, pid = STAMP.unpack(self._socket.recv(STAMP.size))
        return clock, pid


class Bench:
    """A running host, the floor, and a client."""

    def __init__(self, host: RunningHost, stamps: Stamps, floor: Peer, client: Client) -> None:
        self.host = host
        self.stamps = stamps
        self.client = client
        self._floor = floor

    def fork(self) -> int:
        """Return the nanoseconds from the decision to fork to the child's first line."""
        self._floor.tell(fork=1)
        clock, _pid = self.stamps.next()
        began = (self._floor.hear() or {})["at"]
        self._floor.tell(end=True)
        self._floor.hear()
        return clock - int(began)

    def fork_again(self) -> int:
        """Return the nanoseconds from the kill of a child to the first line of the next one."""
        self._floor.tell(kill=True)
        clock, _pid = self.stamps.next()
        return clock - int((self._floor.hear() or {})["at"])

    def fork_many(self, count: int) -> tuple[float, float]:
        """Return the seconds that so many forks take, and their end."""
        self._floor.tell(fork=count)
        last = max(self.stamps.next()[0] for _ in range(count))
        up = last - (self._floor.hear() or {})["at"]
        self._floor.tell(end=True)
        answer = self._floor.hear() or {}
        return up / 1e9, (answer["done"] - answer["at"]) / 1e9

    def worker(self, **keys: Any) -> BackgroundWorker:
        """Return a worker that says when it runs."""
        keys = {"bgw_main_arg": self.stamps.path, "bgw_name": "launched"} | keys
        return BackgroundWorker(bgw_library_name="benchmarks.launch_peers", bgw_function_name="stamp", **keys)

    def launch(self) -> tuple[int, int]:
        """Return the nanoseconds from a client's call to the worker's first line, and to the end of wait_for_startup()."""
        worker = self.worker()
        began = time.monotonic_ns()
        handle = self.client.register_dynamic_background_worker(worker)
        status = handle.wait_for_startup()
        done = time.monotonic_ns()
        assert status.status is BgwHandleStatus.STARTED
        clock, _pid = self.stamps.next()
        self._end(handle)
        return clock - began, done - began

    def _end(self, handle: BackgroundWorkerHandle) -> None:
        handle.terminate()
        handle.wait_for_shutdown()

    def restarts(self, rounds: int) -> tuple[list[int], list[int]]:
        """Return the nanoseconds from kill -9 to the first line of the replacement, and the same for the floor."""
        handle = self.client.register_dynamic_background_worker(self.worker(bgw_restart_time=0))
        _clock, pid = self.stamps.next()
        self._floor.tell(fork=1)
        self.stamps.next()
        self._floor.hear()
        ours: list[int] = []
        floor: list[int] = []
        for _ in range(rounds):
            # The guard against loops delays the restart of what has run for less than a second.
            time.sleep(1.05)
            began = time.monotonic_ns()
            os.kill(pid, signal.SIGKILL)
            clock, pid = self.stamps.next()
            ours.append(clock - began)
            floor.append(self.fork_again())
        self._end(handle)
        self._floor.tell(end=True)
        self._floor.hear()
        return ours, floor


@contextmanager
def bench(slots: int = 64, spares: int = 4, workers: int = 0) -> Iterator[Bench]:
    """Start everything."""
    configuration = _CONFIGURATION.format(slots=slots, spares=spares)
    configuration += "".join(_WORKER.format(number=number) for number in range(workers))
    with ExitStack() as stack:
        host = stack.enter_context(embedded_host(configuration))
        board = Switchboard(str(host.directory / "peers"))
        stamps = Stamps(str(host.directory / "stamps"))
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.launch_peers", str(host.directory / "peers"), stamps.path], cwd=ROOT
        )
        stack.callback(process.wait, DEADLINE)
        stack.callback(process.terminate)
        host.start_and_wait()
        client = stack.enter_context(host.client())
        time.sleep(0.5)
        yield Bench(host, stamps, board.peer("floor"), client)


def _alternate(rounds: int, *ways: Callable[[], Any]) -> list[list[Any]]:
    results: list[list[Any]] = [[] for _ in ways]
    for _ in range(rounds + _WARM_UP):
        for number, way in enumerate(ways):
            results[number].append(way())
            time.sleep(_PAUSE)
    return results


def launch(rounds: int, spares: int = 4) -> Iterator[Figure]:
    """Request to first line, with a spare."""
    with bench(spares=spares) as b:
        ours, floor = _alternate(rounds, b.launch, b.fork)
    how = "" if spares else " (no spare left)"
    yield _figure(f"request to first line{how}", [each[0] for each in ours], floor)
    yield _figure(f"register + wait_for_startup{how}", [each[1] for each in ours], floor)


def restart(rounds: int) -> Iterator[Figure]:
    """Kill -9 to the replacement's first line."""
    with bench() as b:
        ours, floor = b.restarts(max(rounds // 10, 12) + _WARM_UP)
    yield _figure("kill -9 to replacement", ours, floor)


def many(rounds: int) -> Iterator[Figure]:
    """Start and stop of 200 and of 1000 workers."""
    for count in (200, 1000):
        ups: list[float] = []
        stops: list[float] = []
        floors: list[tuple[float, float]] = []
        with bench(slots=count + 16) as b:
            for number in range(max(rounds // 40, 3)):
                began = time.monotonic_ns()
                handles = [
                    b.client.register_dynamic_background_worker(b.worker(bgw_name=f"many {number}", bgw_restart_time=0))
                    for _ in range(count)
                ]
                last = max(b.stamps.next()[0] for _ in range(count))
                ups.append((last - began) / 1e9)
                time.sleep(0.5)
                began = time.monotonic_ns()
                for handle in handles:
                    handle.terminate()
                for handle in handles:
                    handle.wait_for_shutdown()
                stops.append((time.monotonic_ns() - began) / 1e9)
                time.sleep(0.5)
                floors.append(b.fork_many(count))
        median = statistics.median
        yield Figure(f"{count} workers up", "s", median(ups), None, median(up for up, _stop in floors))
        yield Figure(f"{count} workers stopped by their handles", "s", median(stops), None, median(stop for _up, stop in floors))
        yield from _static(count)


def _static(count: int) -> Iterator[Figure]:
    """A host's own start and stop with so many workers in workers.toml."""
    with bench(slots=count + 16, workers=count) as b:
        b.host.wait_until(lambda: _started(b.host) == count, f"{count} workers run")
        times = sorted(slot["started_at"] for slot in b.host.status()["slots"] if slot["bgw_type"] == "idle")
        first, last = (time.strptime(each[:19], "%Y-%m-%dT%H:%M:%S") for each in (times[0], times[-1]))
        seconds = time.mktime(last) + float(times[-1][19:-1]) - time.mktime(first) - float(times[0][19:-1])
        yield Figure(f"{count} static workers, first to last started", "s", seconds)
        began = time.monotonic()
        b.client.stop("fast")
        while b.client.is_host_alive() and any(slot.in_use for slot in _records(b.client)):
            time.sleep(0.002)
        yield Figure(f"{count} workers stopped by a shutdown", "s", time.monotonic() - began)


def _records(client: Client) -> list[Any]:
    return [client._connection.read_slot(number) for number in range(client.max_worker_processes)]


def _started(host: RunningHost) -> int:
    """Return how many of the idle workers run; the plugins have some of their own."""
    return sum(slot["state"] == "started" and slot["bgw_type"] == "idle" for slot in host.status()["slots"])


def memory(rounds: int) -> Iterator[Figure]:
    """Private memory and proportional share of an idle worker."""
    count = 50
    with bench(workers=count) as b:
        b.host.wait_until(lambda: _started(b.host) == count, f"{count} workers run")
        time.sleep(1.0)
        pids = [slot["pid"] for slot in b.host.status()["slots"] if slot["bgw_type"] == "idle"]
        rollups = [_rollup(pid) for pid in pids]
        known = {*pids, b.host.process.pid if b.host.process else 0}
        spares = [_rollup(pid) for pid in _titled("bgworker: spare") if pid not in known]
    yield Figure("private memory of an idle worker", "MB", statistics.median(r["Private"] for r in rollups))
    yield Figure("proportional share of an idle worker", "MB", statistics.median(r["Pss"] for r in rollups))
    if spares:
        yield Figure("private memory of a spare", "MB", statistics.median(r["Private"] for r in spares))


def _rollup(pid: int) -> dict[str, float]:
    values: dict[str, float] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _colon, rest = line.partition(":")
        values[name] = int(rest.split()[0]) / 1024
    return {"Private": values["Private_Clean"] + values["Private_Dirty"], "Pss": values["Pss"]}


def _titled(title: str) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and Path(f"/proc/{entry}/cmdline").read_bytes().startswith(title.encode()):
                found.append(int(entry))
        except OSError:
            pass  # it has just ended
    return found


def status(rounds: int) -> Iterator[Figure]:
    """What it costs to look."""
    with bench(slots=216, workers=200) as b:
        b.host.wait_until(lambda: _started(b.host) == 200, "200 workers run")
        handle = b.client.find("idle 7")
        get_pid: list[float] = []
        slots: list[float] = []
        command: list[float] = []
        for _ in range(rounds + _WARM_UP):
            began = time.perf_counter_ns()
            for _ in range(1000):
                handle.get_pid()
            get_pid.append((time.perf_counter_ns() - began) / 1000)
            began = time.perf_counter_ns()
            b.client.slots()
            slots.append(time.perf_counter_ns() - began)
            began = time.perf_counter_ns()
            program = str(Path(sys.executable).with_name("bgworker"))
            subprocess.run([program, "status", "--json"], stdout=subprocess.DEVNULL, env=b.host._environment(), check=True)
            command.append(time.perf_counter_ns() - began)
    yield _figure("handle.get_pid()", get_pid, unit="us", scale=1e3)
    yield _figure("client.slots() of 200", slots)
    yield _figure("bgworker status --json of 200", command)


QUESTIONS: Final[dict[str, Callable[[int], Iterator[Figure]]]] = {
    "launch": launch,
    "cold": lambda rounds: launch(rounds, spares=0),
    "restart": restart,
    "many": many,
    "memory": memory,
    "status": status,
}


def _table(figures: Sequence[Figure]) -> str:
    lines = [f"{'':44} {'':4} {'median':>9} {'p99':>9} {'raw fork':>9} {'ratio':>6}"]
    for f in figures:
        cells = [f"{value:9.3f}" if value is not None else " " * 9 for value in (f.median, f.p99, f.floor)]
        lines.append(f"{f.name:44} {f.unit:4} {' '.join(cells)} {'' if f.ratio is None else format(f.ratio, '6.2f')}")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=f"some of {', '.join(QUESTIONS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    rounds = 40 if arguments.quick else 200
    figures = [figure for name in arguments.questions or QUESTIONS for figure in QUESTIONS[name](rounds)]
    facts = {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    if arguments.json:
        print(json.dumps({"machine": facts, "figures": [{**asdict(f), "ratio": f.ratio} for f in figures]}, indent=1))  # noqa: T201
    else:
        print(_table(figures))  # noqa: T201 - the command's output


if __name__ == "__main__":
    main()
