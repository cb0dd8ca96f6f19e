"""For authors of plugins: pytest fixtures that run a real host, and a real PostgreSQL, for a test.

A pytest plugin by entry point: installing bgworker is all that is needed. Nothing is imported
and nothing runs until a test asks for a fixture. Not imported by bgworker itself.

- ``bgworker_host``: call it with the text of a workers.toml and get a ``RunningHost``, up and
  running; it is stopped at the end of the test, and the test fails if a process outlives it.
- ``bgworker_database``: the URL of an embedded PostgreSQL that all tests of the session share,
  each test with a database of its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from bgworker import Client

__all__ = ["RunningHost", "bgworker_database", "bgworker_host", "processes_below"]

#: Longest wait for any condition, in seconds; generous, because a loaded machine is slow.
DEADLINE: Final = 60.0
#: How long what is left of a host may take to disappear, in seconds.
_END_DEADLINE: Final = 5.0

_Found = TypeVar("_Found")


class RunningHost:
    """A host under test, in a directory of its own, run as its users run it.

    Args:
        directory: Holds workers.toml, plain modules, and the data directory.
        configuration: The text of workers.toml.
    """

    def __init__(self, directory: Path, configuration: str) -> None:
        self.directory = directory
        self.config_path = directory / "workers.toml"
        self.config_path.write_text(configuration)
        self.data_directory = directory / "data"
        self.output = directory / "host.out"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> None:
        """Start the host without waiting for it."""
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "bgworker", "run", "-c", str(self.config_path), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                start_new_session=True,
                env=self._environment(),
            )

    def start_and_wait(self, *states: str) -> None:
        """Start the host and wait until it is in one of these states; "run" when none is named."""
        self.start()
        self.wait_for_state(*(states or ("run",)))

    def run_cli(self, *arguments: str, timeout: float = DEADLINE, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a bgworker command on this host and return what it printed."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "bgworker", *arguments],
            capture_output=True,
            text=True,
            input=text,
            timeout=timeout,
            cwd=self.directory,
            env=self._environment(),
            check=False,
        )

    def client(self) -> Client:
        """Return a connected client; the caller closes it."""
        import bgworker

        return bgworker.connect(str(self.data_directory))

    def status(self) -> dict[str, Any]:
        """Return the status as ``bgworker status --json`` prints it; an empty one while no host answers."""
        try:
            with self.client() as client:
                return client.status()
        except ConnectionError:
            return {"host": {"state": "", "database": None}, "slots": [], "finished": [], "broken_plugins": [], "rejected": []}

    def slot(self, name: str) -> dict[str, Any] | None:
        """Return the slot of this worker, if it has one."""
        return next((slot for slot in self.status()["slots"] if slot["bgw_name"] == name), None)

    def finished(self, name: str) -> dict[str, Any] | None:
        """Return the entry of this worker under finished, if it has one."""
        return next((entry for entry in self.status()["finished"] if entry["bgw_name"] == name), None)

    def database_url(self) -> str:
        """Return the URL of the host's database as status shows it."""
        url: str = self.status()["host"]["database"]["url"]
        return url

    def wait_until(self, condition: Callable[[], _Found], what: str, timeout: float = DEADLINE) -> _Found:
        """Wait until a condition of the world outside is true, and return its value; fail the test at the deadline."""
        deadline = time.monotonic() + timeout
        while True:
            # Looked at before the condition: a host that ended in between may have made it true with its last act.
            is_over = time.monotonic() >= deadline or (self.process is not None and self.process.poll() is not None)
            if found := condition():
                return found
            if is_over:
                pytest.fail(f"waited in vain until {what}\n{self.report()}")
            time.sleep(0.02)

    def wait_for_state(self, *states: str) -> None:
        """Wait until the host is in one of these states."""
        self.wait_until(lambda: self.status()["host"]["state"] in states, f"the host is in state {' or '.join(states)}")

    def wait_for_worker(self, name: str, state: str = "started") -> dict[str, Any]:
        """Wait until a worker is in a state; return its slot as status shows it."""

        def found() -> dict[str, Any] | None:
            slot = self.slot(name)
            return slot if slot is not None and slot["state"] == state else None

        slot = self.wait_until(found, f'background worker "{name}" is {state}')
        assert slot is not None
        return slot

    def log(self, name: str = "host") -> str:
        """Return what the host, or the workers of a log file, have written so far."""
        path = self.data_directory / "log" / ("host.log" if name == "host" else f"workers/{name}.log")
        return path.read_text() if path.exists() else ""

    def report(self) -> str:
        """Return what helps to understand a failure: status, output, the end of each log."""
        parts = [f"status: {self.status()}", self.output.read_text() if self.output.exists() else ""]
        parts += [f"--- {path.name}\n{path.read_text()[-4000:]}" for path in sorted((self.data_directory / "log").rglob("*.log"))]
        return "\n".join(parts)

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """End the host with a signal and return its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signum)
        return self.process.wait(timeout=DEADLINE)

    def close(self) -> None:
        """Stop the host if it runs; whatever it does, it is gone afterwards."""
        if self.process is None:
            return
        try:
            self.stop()
        finally:
            self.process.kill()
            self.process.wait()

    def _environment(self) -> dict[str, str]:
        # What the test's own environment says of another host must not lead a command there.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("BGWORKER_")}
        return {**inherited, "BGWORKER_CONFIG": str(self.config_path)}


@pytest.fixture
def bgworker_host() -> Iterator[Callable[..., RunningHost]]:
    """Return a maker of hosts: ``bgworker_host(workers_toml, start=True, **modules)``.

    ``modules`` are texts of plain modules that are put beside workers.toml.
    """
    hosts: list[RunningHost] = []
    # Not pytest's tmp_path: a service user must be able to pass through to an embedded PostgreSQL.
    base = Path(tempfile.mkdtemp(prefix="bgworker-test-"))
    base.chmod(0o711)

    def make(configuration: str = "", *, start: bool = True, **modules: str) -> RunningHost:
        directory = base / f"host{len(hosts)}"
        directory.mkdir()
        for name, text in modules.items():
            (directory / f"{name}.py").write_text(text)
        host = RunningHost(directory, configuration)
        hosts.append(host)
        if start:
            host.start_and_wait()
        return host

    try:
        yield make
    finally:
        for host in hosts:
            host.close()
        left = _wait_for_the_end(str(base))
        shutil.rmtree(base, ignore_errors=True)
        assert not left, f"processes outlived their host: {left}"


@pytest.fixture(scope="session")
def _bgworker_postgres() -> Iterator[RunningHost]:
    base = Path(tempfile.mkdtemp(prefix="bgworker-test-"))
    base.chmod(0o711)
    host = RunningHost(base, '[host]\nmax_worker_processes = 8\n[database]\nurl = "embedded"\n')
    try:
        host.start_and_wait()
        yield host
    finally:
        host.close()
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def bgworker_database(_bgworker_postgres: RunningHost, request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the URL of a fresh database for this test, on an embedded PostgreSQL that the session shares."""
    import psycopg
    from psycopg import sql

    url = _bgworker_postgres.database_url()
    name = f"test_{abs(hash(request.node.nodeid)):x}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield urlsplit(url)._replace(path=f"/{name}").geturl()
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def processes_below(directory: str) -> dict[int, str]:
    """Return the processes whose command line or open files name this directory, with their command lines."""
    found: dict[int, str] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            command = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            state = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[0]
            files = [os.readlink(f"/proc/{entry}/fd/{fd}") for fd in os.listdir(f"/proc/{entry}/fd")]
        except OSError:
            continue  # it has just ended, or is somebody else's
        if state != "Z" and (directory in command or any(file.startswith(directory) for file in files)):
            found[int(entry)] = command
    return found


def _wait_for_the_end(directory: str) -> dict[int, str]:
    """Wait until no process is left below the directory; end and return those that stay."""
    deadline = time.monotonic() + _END_DEADLINE
    while (left := processes_below(directory)) and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return left
