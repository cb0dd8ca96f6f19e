"""The control socket: requests per second and their 99th percentile with 1, 10 and 100 clients, while workers come and go.

    python -m benchmarks control

Each client sends its next request when it has the answer to the last. They are all driven by
one process of plain sockets, which is not the host's but takes a processor as well. Meanwhile
another one registers workers that return at once, a hundred in a second; how many it managed
is a figure, too.
"""

from __future__ import annotations

import json
import selectors
import socket
import subprocess
import sys
import time
from typing import Any, Final

from benchmarks.figures import Figure, figure, grouped, percentile
from benchmarks.harness import DEADLINE, ROOT
from benchmarks.peers.bgworker import BgWorker
from benchmarks.run import Run

TITLE: Final = "Control socket"
_METHODS: Final[tuple[dict[str, Any], ...]] = ({"method": "ping"}, {"method": "find", "params": {"name": "w0"}})
_WORKERS: Final = 20


def measure(run: Run) -> list[Figure]:
    """Drive 1, 10 and 100 clients against a host that is busy with births and exits."""
    seconds = 1.0 if run.quick else 4.0
    figures: list[Figure] = []
    with run.up(BgWorker, 0, _WORKERS + 200) as way:
        way.launch_all(range(_WORKERS))
        way.beacon.wait_all(range(_WORKERS))
        data = str(way.directory / "data")
        churn = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.churn", data], cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE
        )
        assert churn.stdout is not None
        assert churn.stdin is not None
        try:
            churn.stdout.readline()
            for clients in (1, 10, 100):
                name = f"{clients} client" + ("s" if clients > 1 else "")
                latencies, took = _drive(f"{data}/run/control.sock", clients, seconds)
                figures.append(figure("requests", "per s", name, [len(latencies) / took]))
                figures.append(figure("answer, median", "ms", name, latencies))
                figures.append(figure("answer, 99th percentile", "ms", name, [percentile(latencies, 99)]))
            churn.stdin.close()
            figures.append(figure("workers that came and went", "per s", name, [float(churn.stdout.readline())]))
            churn.wait(DEADLINE)
        finally:
            churn.kill()
            churn.wait()
            churn.stdout.close()
    return grouped(figures)


def _drive(path: str, clients: int, seconds: float) -> tuple[list[float], float]:
    """Return how long each answer took in milliseconds, and the seconds of the whole."""
    requests = [json.dumps({"id": number, **method}).encode() + b"\n" for number, method in enumerate(_METHODS)]
    selector = selectors.EpollSelector()
    sent: dict[socket.socket, tuple[int, int]] = {}
    for _ in range(clients):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(DEADLINE)
        client.connect(path)
        while not client.recv(65536).endswith(b"\n"):
            pass
        selector.register(client, selectors.EVENT_READ)
        sent[client] = (0, time.monotonic_ns())
        client.send(requests[0])
    latencies: list[float] = []
    begin = time.monotonic()
    parts: dict[socket.socket, bytes] = dict.fromkeys(sent, b"")
    while time.monotonic() - begin < seconds:
        for key, _ in selector.select(DEADLINE):
            client = key.fileobj  # type: ignore[assignment]
            parts[client] += client.recv(65536)
            if not parts[client].endswith(b"\n"):
                continue
            parts[client] = b""
            which, at = sent[client]
            now = time.monotonic_ns()
            latencies.append((now - at) / 1e6)
            sent[client] = ((which + 1) % len(requests), now)
            client.send(requests[sent[client][0]])
    took = time.monotonic() - begin
    for client in sent:
        client.close()
    selector.close()
    return latencies, took
