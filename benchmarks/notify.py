"""NOTIFY: from a commit to a listener, and how many in a second, for workers and for plain psycopg.

    python -m benchmarks.notify [--quick] [--json]

Four processes are measured, see notify_peers.py; the listener of (a) is this one. Before each
round the other way has had its round, and the first of each is thrown away.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from benchmarks.figures import Figure
from benchmarks.harness import DEADLINE, ROOT, Peer, Result, Switchboard, embedded_host, latencies, machine, rates, report
from benchmarks.notify_peers import arrivals, listener
from benchmarks.run import Run

_CONFIGURATION: Final = """
[host]
max_worker_processes = 8
python_path = ["{root}"]
[database]
url = "embedded"
[[worker]]
bgw_name = "sender"
bgw_library_name = "benchmarks.notify_peers"
bgw_function_name = "worker_sender"
bgw_flags = ["BGWORKER_SHMEM_ACCESS", "BGWORKER_BACKEND_DATABASE_CONNECTION"]
bgw_main_arg = "{directory}/peers"
[[worker]]
bgw_name = "receiver"
bgw_library_name = "benchmarks.notify_peers"
bgw_function_name = "worker_receiver"
bgw_main_arg = "{directory}/peers"
wake_on = ["worker_channel"]
"""
TITLE: Final = "NOTIFY"
#: Between two notifications when a delay is measured: everything has gone to sleep by then.
_PAUSE: Final = 0.002

Round = Callable[[float], tuple[list[int], float]]


class Bench:
    """Rounds in both ways.

    Args:
        board: Where the peers call.
        url: Of the server.
        count: Notifications in a round.
        rounds: Rounds in each way that count.
    """

    def __init__(self, board: Switchboard, url: str, count: int, rounds: int) -> None:
        self._board = board
        self._count = count
        self._rounds = rounds
        self._connection, self._poller = listener(url, "bench_channel")

    def sent_by(self, sender: str) -> Round:
        """Return rounds from this sender to the listener of this process."""
        peer = self._board.peer(sender)

        def run(pause: float) -> tuple[list[int], float]:
            begin = time.monotonic_ns()
            peer.tell(channel="bench_channel", count=self._count, pause=pause)
            delays: list[int] = []
            while len(delays) < self._count:
                payloads = arrivals(self._connection, self._poller)
                now = time.monotonic_ns()
                delays += [now - int(payload) for payload in payloads]
            seconds = (time.monotonic_ns() - begin) / 1e9
            _answer(peer)
            return delays, self._count / seconds

        return run

    def heard_by(self, receiver: str, channel: str) -> Round:
        """Return rounds from the plain sender to this receiver."""
        sender, peer = self._board.peer("plain sender"), self._board.peer(receiver)

        def run(pause: float) -> tuple[list[int], float]:
            begin = time.monotonic_ns()
            sender.tell(channel=channel, count=self._count, pause=pause)
            _answer(sender)
            self._connection.execute("SELECT pg_notify(%s, 'report')", (channel,))
            answer = _answer(peer)
            assert len(answer["delays"]) == self._count, f"{receiver} got {len(answer['delays'])} of {self._count}"
            return answer["delays"], self._count / ((answer["at"] - begin) / 1e9)

        return run

    def compare(self, delay_name: str, rate_name: str, ours: Round, theirs: Round) -> list[Result]:
        """Measure delays with pauses, then rates without."""
        delays: tuple[list[int], list[int]] = ([], [])
        speeds: tuple[list[float], list[float]] = ([], [])
        for pause in (_PAUSE, 0.0):
            for number in range(self._rounds + 1):
                for way, run in enumerate((ours, theirs)):
                    arrived, speed = run(pause)
                    if number and pause:
                        delays[way].extend(arrived)
                    elif number:
                        speeds[way].append(speed)
        return [latencies(delay_name, *delays), rates(rate_name, *speeds)]


def _answer(peer: Peer) -> dict[str, Any]:
    answer = peer.hear()
    assert answer is not None, "a process that is measured has died"
    return answer


@contextmanager
def plain_processes(path: str, url: str) -> Iterator[None]:
    """Run the two ways in plain psycopg."""
    processes = [
        subprocess.Popen([sys.executable, "-m", "benchmarks.notify_peers", name, path, url], cwd=ROOT)
        for name in ("sender", "receiver")
    ]
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.wait(DEADLINE)


def compare(count: int, rounds: int) -> tuple[dict[str, Any], list[Result]]:
    """Measure with so many notifications in a round; return what the figures depend on, and the figures."""
    with embedded_host(_CONFIGURATION) as host:
        path = str(host.directory / "peers")
        board = Switchboard(path)
        host.start_and_wait()
        url = host.database_url()
        with plain_processes(path, url):
            bench = Bench(board, url, count, rounds)
            results = bench.compare(
                "(a) commit to a plain listener",
                "(c) notifications sent",
                bench.sent_by("worker sender"),
                bench.sent_by("plain sender"),
            )
            results += bench.compare(
                "(b) plain commit to a receiver awake",
                "(c) notifications received",
                bench.heard_by("worker receiver", "worker_channel"),
                bench.heard_by("plain receiver", "plain_channel"),
            )
        return machine(url), results


def measure(run: Run) -> list[Figure]:
    """Measure as one question of a whole run."""
    _machine, results = compare(100, 4 if run.quick else 12)
    figures = []
    for each in results:
        for way, median, p99 in (("bgworker", each.ours, each.ours_p99), ("psycopg", each.psycopg, each.psycopg_p99)):
            figures.append(Figure(each.name, each.unit, way, median, median, median, 1, p99))
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    facts, results = compare(*((100, 8) if arguments.quick else (150, 40)))
    print(report(facts, results, as_json=arguments.json))  # noqa: T201 - the command's output


if __name__ == "__main__":
    main()
