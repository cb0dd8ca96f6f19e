"""A real PgBouncer before a server that the tests started."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from tests.integration.database.driving import DEADLINE, HERE, SERVICE_USER, Server, give_away, wait_until

#: Debian has it where ordinary users do not look.
PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")

needs_pgbouncer = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")

_CONFIGURATION = """\
[databases]
* = host={server.directory} port={server.port}
[pgbouncer]
listen_port = 6432
unix_socket_dir = {directory}
auth_type = scram-sha-256
auth_file = {directory}/users
pool_mode = {mode}
{more}
"""


class Pooler:
    """Listens on a socket of its own directory alone; knows the role postgres with the password "sesame"."""

    def __init__(self, directory: Path, server: Server, mode: str, more: str = "") -> None:
        self.directory = directory
        directory.mkdir()
        (directory / "users").write_text('"postgres" "sesame"\n')
        (directory / "ini").write_text(_CONFIGURATION.format(server=server, directory=directory, mode=mode, more=more))
        give_away(directory)
        command = [sys.executable, "-P", str(HERE / "as_service.py"), SERVICE_USER, str(PGBOUNCER), str(directory / "ini")]
        with (directory / "log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self.answers, f"an answer of pgbouncer in {directory}")

    def url(self, password: str = "sesame") -> str:
        """Return a url that leads through it."""
        return f"postgresql://postgres:{password}@/postgres?host={self.directory}&port=6432"

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        """Connect as somebody who has nothing to do with bgworker."""
        return psycopg.connect(self.url(), autocommit=True, prepare_threshold=None, application_name="stranger")

    def answers(self) -> bool:
        """Whether it takes connections."""
        assert self.process.poll() is None, (self.directory / "log").read_text()
        try:
            psycopg.connect(self.url(), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """End it at once."""
        self.process.terminate()
        self.process.wait(DEADLINE)
