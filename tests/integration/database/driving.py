"""What the tests of the database process drive: a fake host, and servers that somebody else runs."""

from __future__ import annotations

import json
import os
import pwd
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg

from bgworker._database.binaries import find_binaries

HERE = Path(__file__).parent
#: Longest wait for any condition; generous, because machines that run tests are busy.
DEADLINE = 30.0
IS_ROOT = os.geteuid() == 0
#: As whom PostgreSQL runs in these tests.
SERVICE_USER = "nobody" if IS_ROOT else pwd.getpwuid(os.geteuid()).pw_name

Message = dict[str, Any]


def wait_until(condition: Callable[[], Any], what: str, timeout: float = DEADLINE) -> Any:
    """Return the condition's first true value."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(0.005)
    return value


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def processes_in(directory: Path | str) -> list[int]:
    """Return the processes whose working directory is this one: a server's, with all its children."""
    there = os.stat(directory)
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                status = os.stat(f"/proc/{entry}/cwd")
            except OSError:
                continue
            if (status.st_dev, status.st_ino) == (there.st_dev, there.st_ino) and is_running(int(entry)):
                found.append(int(entry))
    return found


class FakeHost:
    """The test's side of host_process.py."""

    def __init__(self, data_directory: Path, prefix: Sequence[str] = (), **environment: str) -> None:
        self.data_directory = data_directory
        self.news: list[Message] = []
        self._buffer = b""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "BGWORKER"))}
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-P", str(HERE / "host_process.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**clean, **environment},
            start_new_session=True,
        )
        self._selector = selectors.DefaultSelector()
        assert self.process.stdout is not None
        self._selector.register(self.process.stdout, selectors.EVENT_READ)

    # --- talking ---

    def _command(self, command: Message) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        self.process.stdin.flush()

    def send(self, **message: Any) -> None:
        """Send a message to the database process."""
        self._command({"send": message})

    def spawn(self) -> int:
        """Start a database process and return its pid."""
        mark = self.mark()
        self._command({"spawn": True})
        return int(self.wait_for(lambda news: "spawned" in news, "a database process", mark)["spawned"])

    def embedded(self, **changes: Any) -> None:
        """Start a database process for an embedded server."""
        self.spawn()
        self.configure_embedded(**changes)

    def configure_embedded(self, **changes: Any) -> None:
        """Tell the database process to run an embedded server."""
        settings = {"name": "postgres", "user": SERVICE_USER if IS_ROOT else None, "max_connections": 30, "postgres_pid": None}
        where = {"data_directory": str(self.data_directory), "url": "embedded", "direct_url": None}
        self.send(type="configure", kind="embedded", **{**settings, **where, **changes})

    def external(self, url: Any, direct_url: Any = None, phase: str = "starting") -> None:
        """Start a database process that watches a server, whose phase a predecessor may have found out."""
        self.spawn()
        where = {"data_directory": str(self.data_directory), "url": url, "direct_url": direct_url, "phase": phase}
        self.send(type="configure", kind="external", name="postgres", user=None, max_connections=30, postgres_pid=None, **where)

    # --- listening ---

    def mark(self) -> int:
        """Return a point in the news, for waits that must not see what is old."""
        self.read(0.0)
        return len(self.news)

    def read(self, timeout: float) -> bool:
        """Take news that have come, or come within the timeout; return whether there were any."""
        if not self._selector.select(timeout):
            return False
        assert self.process.stdout is not None
        data = os.read(self.process.stdout.fileno(), 65_536)
        if not data:
            raise AssertionError(f"the fake host has gone; its last news: {self.news[-5:]}")
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        self.news.extend(json.loads(line) for line in lines)
        return True

    def wait_for(self, condition: Callable[[Message], Any], what: str, after: int = 0, timeout: float = DEADLINE) -> Message:
        """Return the first piece of news after the mark for which the condition holds."""
        deadline = time.monotonic() + timeout
        while True:
            for news in self.news[after:]:
                if condition(news):
                    return news
            after = len(self.news)
            if not self.read(max(0.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                raise AssertionError(f"not within {timeout} s: {what}; the news were {self.news[-12:]}")

    def received(self, kind: str, after: int = 0, timeout: float = DEADLINE, **fields: Any) -> Message:
        """Return the first message of this type after the mark that has these fields."""

        def fits(news: Message) -> bool:
            message = news.get("received", {})
            return bool(message.get("type") == kind and all(message.get(key) == value for key, value in fields.items()))

        message: Message = self.wait_for(fits, f"{kind} {fields}", after, timeout)["received"]
        return message

    def phase(self, phase: str, after: int = 0, containing: str = "", timeout: float = DEADLINE) -> Message:
        """Return the first phase message after the mark with this phase and a detail that contains the text."""

        def fits(news: Message) -> bool:
            message = news.get("received", {})
            return bool(message.get("type") == "phase" and message["phase"] == phase and containing in message["detail"])

        message: Message = self.wait_for(fits, f"phase {phase} {containing!r}", after, timeout)["received"]
        return message

    def messages(self, kind: str) -> list[Message]:
        """Return all messages of this type so far."""
        self.read(0.0)
        return [news["received"] for news in self.news if news.get("received", {}).get("type") == kind]

    @property
    def postgres_pid(self) -> int:
        """The pid that was last told to be PostgreSQL's."""
        return int(self.messages("postgres")[-1]["pid"])

    @property
    def database_pid(self) -> int:
        """The pid of the last database process."""
        return int([news["spawned"] for news in self.news if "spawned" in news][-1])

    def connect(self, **changes: Any) -> psycopg.Connection[Any]:
        """Connect as a worker would."""
        return psycopg.connect(self.messages("phase")[-1]["conninfo"], autocommit=True, **changes)

    # --- ending ---

    def stop(self, mode: str = "fast") -> float:
        """Stop the database, and return how long it took."""
        begin = time.monotonic()
        mark = self.mark()
        self.send(type="stop", mode=mode)
        self.received("stopped", mark)
        duration = time.monotonic() - begin
        pid = self.database_pid
        self.wait_for(lambda news: news.get("child_exited") == pid and news["status"] == 0, "exit code 0", mark)
        return duration

    def kill(self) -> None:
        """Kill the host, as a machine that runs out of memory would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """End this host, and with it everything it has started; see ``wait_for_end``."""
        if self.process.poll() is None:
            self.kill()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                pass
        self._selector.close()

    def wait_for_end(self) -> None:
        """Wait until no server runs in the data directory."""
        pg = self.data_directory / "pg"
        if pg.is_dir():
            wait_until(lambda: not processes_in(pg), f"the end of the server in {pg}")


class Server:
    """A server that somebody else runs: on a port of 127.0.0.1 and a socket beside its data."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.log = directory / "log"
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def base_backup(self, primary: Server) -> None:
        """Become a standby of another server."""
        give_away(self.directory)
        self.program("pg_basebackup", "-D", str(self.data), "-d", primary.local_url, "--checkpoint=fast", "--write-recovery-conf")

    def program(self, name: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs to its end."""
        subprocess.run(as_service(name, *arguments), check=True, stdout=subprocess.DEVNULL, timeout=DEADLINE * 2)

    def copy(self, template: Path) -> None:
        """Take a copy of an embedded server's data directory, but let clients in over TCP, with the password "sesame"."""
        subprocess.run(["cp", "-a", str(template), str(self.data)], check=True)
        rules = self.data / "pg_hba.conf"
        rules.write_text(rules.read_text().replace("reject", "scram-sha-256"))
        self.start()
        with self.connect() as connection:
            connection.execute("ALTER ROLE postgres PASSWORD 'sesame'")
        self.stop(signal.SIGINT)

    def start(self, **changes: Any) -> None:
        """Start it, with these settings beside the usual ones, and wait until it answers."""
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": self.directory, "fsync": "off"}
        arguments = [part for key, value in {**settings, **changes}.items() for part in ("-c", f"{key}={value}")]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(as_service("postgres", "-D", str(self.data), *arguments), stdout=log, stderr=log)
        wait_until(self.answers, f"an answer of {self.local_url}")

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            psycopg.connect(self.local_url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def connect(self, **changes: Any) -> psycopg.Connection[Any]:
        """Connect as its administrator."""
        return psycopg.connect(self.local_url, autocommit=True, **changes)

    @property
    def local_url(self) -> str:
        """A url that needs no password."""
        return f"postgresql://postgres@/postgres?host={self.directory}&port={self.port}"

    @property
    def url(self) -> str:
        """A url over TCP, with the password."""
        return f"postgresql://postgres:sesame@127.0.0.1:{self.port}/postgres"

    def stop(self, signum: int = signal.SIGQUIT) -> None:
        """Stop it and wait for its end."""
        if self.process is not None:
            self.process.send_signal(signum)
            self.process.wait(DEADLINE)
            self.process = None


def as_service(name: str, *arguments: str) -> list[str]:
    """Return the command line that runs one of PostgreSQL's programs as the service user, from wherever it is installed."""
    return [sys.executable, "-P", str(HERE / "as_service.py"), SERVICE_USER, find_binaries().program(name), *arguments]


def give_away(*paths: Path) -> None:
    """Make the service user the owner."""
    if IS_ROOT:
        user = pwd.getpwnam(SERVICE_USER)
        for path in paths:
            os.chown(path, user.pw_uid, user.pw_gid)


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
