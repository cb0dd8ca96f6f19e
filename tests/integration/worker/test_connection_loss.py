"""What the end of its connection does to a worker, and what does not count as one; on a real server."""

from __future__ import annotations

import select
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest
from tests.integration.stillness import wait_until_still
from tests.integration.worker.driving import Life, PlayedHost
from tests.integration.worker.server import Server

from bgworker._spec import DATABASE_WORKER_FLAGS

Start = Callable[..., Life]

KILLED = "terminating connection due to administrator command"
FATAL = f'FATAL:  terminating background worker "tested" because its database connection was lost: {KILLED}\n'


@pytest.fixture
def start(host: PlayedHost, database: dict[str, Any]) -> Start:
    """Start a database worker of lossfunctions."""

    def start(function: str, arg: Any = None, **keys: Any) -> Life:
        wanted = {"bgw_flags": DATABASE_WORKER_FLAGS, "database": database, **keys}
        return host.start(function, arg, library="lossfunctions", **wanted)

    return start


@pytest.fixture
def losses(server: Server) -> Iterator[Server]:
    """The table of what was written before the connection ended."""
    server.run("CREATE TABLE IF NOT EXISTS losses (mark text)", "TRUNCATE losses")
    yield server
    server.run("DROP TABLE losses")


def reason_for_host(life: Life) -> str:
    """Return what the worker said about its exit."""
    while (message := life.receive("the reason")).get("type") != "exiting":
        pass
    return str(message["error"])


def backend_of(life: Life) -> int:
    """Return the worker's backend, as it says itself."""
    return int(life.read_until("\n").splitlines()[0])


def wait_until_there(life: Life, server: Server, backend: int, how: str) -> None:
    """Wait until the worker sleeps, or its query runs."""
    if how in ("asleep", "loop", "elsewhere"):
        life.wait_for_activity(wait_event="Idle")
        life.wait_until_asleep()
    elif how != "busy":
        server.wait_until("SELECT state = 'active' AND query LIKE '%%pg_sleep%%' FROM pg_stat_activity WHERE pid = %s", backend)


@pytest.mark.parametrize(
    ("function", "how"),
    [
        *(("lose", how) for how in ("asleep", "loop", "query", "plain query", "busy", "swallowed")),
        *(("lose_async", how) for how in ("asleep", "loop", "query", "plain query", "elsewhere")),
    ],
)
def test_terminated_backend_ends_the_worker(start: Start, losses: Server, function: str, how: str) -> None:
    """C20, T71: a connection that the server ends takes the worker along: exit code 1, the server's words, clean-up run."""
    life = start(function, how)
    backend = backend_of(life)
    wait_until_there(life, losses, backend, how)
    losses.run(f"SELECT pg_terminate_backend({backend})")
    assert life.wait() == 1
    assert life.read("err") == FATAL
    left_by = "Terminated" if function == "lose" or "query" in how else "CancelledError"
    assert f"{how} left by {left_by}\n" in life.read("out")
    assert reason_for_host(life) == f"database connection lost: {KILLED}"
    assert losses.value("SELECT count(*) FROM losses") == 0


def test_killed_backend_ends_its_neighbours(start: Start, server: Server) -> None:
    """C20: a backend that crashes takes every session with it; a sleeping worker says what the server said."""
    victim, neighbour = start("lose", "plain query"), start("lose", "asleep")
    backend = backend_of(victim)
    wait_until_there(neighbour, server, backend_of(neighbour), "asleep")
    wait_until_there(victim, server, backend, "query")
    server.kill_backend(backend)
    assert (victim.wait(), neighbour.wait()) == (1, 1)
    assert "terminating connection because of crash of another server process" in neighbour.read("err")
    assert "because its database connection was lost: " in victim.read("err")
    server.wait_until_ready()


def test_transaction_that_is_gone_is_not_taken_for_committed(start: Start, server: Server) -> None:
    """C20: the end of a block whose connection has ended is not a silent success."""
    life = start("commits_what_is_gone")
    server.run(f"SELECT pg_terminate_backend({backend_of(life)})")
    assert life.wait() == 1
    assert "not reached" not in life.read("out")
    assert FATAL in life.read("err")


@pytest.mark.parametrize("function", ["closes_itself", "closes_itself_async"])
def test_own_close_ends_nothing(start: Start, function: str) -> None:
    """C20: a worker that closes its connection itself goes on."""
    life = start(function)
    assert life.wait() == 0, life.read("err")
    assert life.read("out") == "8\n"


@pytest.mark.parametrize("how", ["asleep", "plain query"])
def test_half_open_connection_is_noticed(start: Start, server: Server, how: str) -> None:
    """C20: a peer that vanishes without a word is found by keepalives, asleep and in a query."""
    with Cable(server.port) as cable:
        keepalives = "keepalives_idle=1 keepalives_interval=1 keepalives_count=1 tcp_user_timeout=2000"
        conninfo = f"host=127.0.0.1 port={cable.port} user=postgres dbname=postgres {keepalives}"
        life = start("lose", how, database={"kind": "external", "conninfo": conninfo, "role": None})
        backend = backend_of(life)
        wait_until_there(life, server, backend, how)
        cable.cut()
        assert life.wait() == 1
        assert 'terminating background worker "tested" because its database connection was lost: ' in life.read("err")
        assert "timed out" in life.read("err")


class Cable:
    """A relay in front of the server, which can be cut: what arrives is then dropped by the kernel, unacknowledged."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = []
        self._thread = threading.Thread(target=self._relay)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for end in self._ends:
            end.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for end in (self._listener, *self._ends):
            end.close()

    def _relay(self) -> None:
        client, _address = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._server_port))
        self._ends = [client, server]
        while True:
            for end in select.select(self._ends, [], [])[0]:
                data = end.recv(65536)
                if not data:
                    return
                (server if end is client else client).sendall(data)

    def cut(self) -> None:
        """Drop whatever the worker's kernel sends from now on, its probes too: a classic BPF program that takes no byte."""
        program = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K, 0
        buffer = (len(program) // 8, program)
        import ctypes

        memory = ctypes.create_string_buffer(buffer[1])
        fprog = struct.pack("HL", buffer[0], ctypes.addressof(memory))
        self._ends[0].setsockopt(socket.SOL_SOCKET, 26, fprog)  # SO_ATTACH_FILTER


@pytest.mark.parametrize("function", ["listen_ways", "listen_ways_async"])
@pytest.mark.parametrize(
    "how", ["spi", "executemany", "executemany returning", "statements", "prepared", "pipeline", "copy", "stream", "own cursor"]
)
def test_listen_is_refused_however_it_is_sent(start: Start, function: str, how: str) -> None:
    """C27: LISTEN is refused and undone by each way that psycopg has to send a statement."""
    life = start(function, how)
    assert life.wait() == 0, life.read("err")
    # psycopg refuses a stream() without rows itself, and keeps the tag; the LISTEN is undone all the same.
    error = "ProgrammingError: the operation in stream()" if how == "stream" else "UsageError: a background worker cannot LISTEN"
    lines = life.read("out").splitlines()
    assert lines[0].startswith(error), lines
    assert lines[1:] == ["(0,)"]


@pytest.mark.parametrize("function", ["hides_listen", "hides_listen_async"])
def test_hidden_listen_ends_a_sleeping_worker(start: Start, server: Server, function: str) -> None:
    """C27: the first notification of a LISTEN in a DO block ends a worker that sleeps, async or not, and the host hears why."""
    life = start(function)
    life.read_until("ready")
    life.wait_for_activity(wait_event="Idle")
    server.run("NOTIFY hidden")
    assert life.wait() == 1
    assert 'because it listens on channel "hidden"\n' in life.read("err")
    assert reason_for_host(life) == 'it listens on channel "hidden" itself; name it in wake_on'


@pytest.mark.parametrize(("function", "event"), [("sleeps_after_query", "Idle"), ("streams_slowly", "Half")])
def test_async_worker_watches_its_idle_socket_without_period(start: Start, function: str, event: str) -> None:
    """C23: the watch costs no wake-up, nor does a half-read result make it spin."""
    life = start(function)
    life.wait_for_activity(wait_event=event)
    wait_until_still(life.pid)
    life.signal(signal.SIGTERM)
    assert life.wait() == 1
