"""The control socket under bytes of any kind: errors for who sent them, and the host answers everybody else."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Callable

from hypothesis import HealthCheck, Phase, example, given, settings

from bgworker import Client
from bgworker.testing import RunningHost
from tests.fuzz.corpus import TIMES, mutated, seeds

PIECES = (
    b"\n", b"{", b"}", b"[", b"]", b'"', b",", b":", b"null", b"true", b"-0", b"1e400", b"NaN", b"\\ud800", b"\\u0000", b"\xff",
    b"9" * 300, b"[" * 70, b'"id":1,', b'"method":"status"', b'"method":"stop"', b'"params":[]', b'"handle":"0.0"', b"0.1",
    b"-1.-1", b'"timeout":-1', b'"timeout":1e300', b'"name":""', b"{" * 64 + b"}" * 64,
)  # fmt: skip
#: Would end what the test needs, rightly.
FORBIDDEN = (b'"stop"', b"signal")


def send(client: Client, path: str, data: bytes) -> None:
    """Send the bytes, read what comes, and see that the honest client is served all the same."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(10)
        peer.connect(path)
        received = b""
        try:
            peer.sendall(data + b'\n{"id":"last","method":"ping"}\n')
            while b'"id":"last"' not in received and (block := peer.recv(65_536)):
                received += block
        except (ConnectionResetError, BrokenPipeError, TimeoutError):
            # Cut off, or the last request became a part of what was sent before: the honest client decides.
            pass
    for line in received.splitlines()[:-1]:
        json.loads(line)
    client.ping()


def test_anything_on_the_socket(bgworker_host: Callable[..., RunningHost]) -> None:
    """T46: whatever a client sends, it gets JSON or the end of its connection, and the host serves the next one."""
    host = bgworker_host("[host]\nmax_worker_processes = 4\n")
    path = str(host.data_directory / "run" / "control.sock")
    with host.client() as client:

        @settings(
            max_examples=150 * TIMES,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(mutated("control", PIECES).filter(lambda data: not any(word in data for word in FORBIDDEN)))
        def run(data: bytes) -> None:
            send(client, path, data)

        for seed in seeds("control"):
            if not any(word in seed for word in FORBIDDEN):
                run = example(seed)(run)
        run()
        assert host.process is not None
        assert host.process.poll() is None
        assert not select.select([client._connection.fileno()], [], [], 0)[0], "the honest client has unread bytes"
        assert "internal error" not in host.log()
