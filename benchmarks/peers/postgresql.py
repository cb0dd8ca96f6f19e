"""PostgreSQL's own background workers: Debian's server with a C module of ours, built where the headers are installed.

The module is small (postgresql_worker.c); the calls are RegisterDynamicBackgroundWorker and
WaitForBackgroundWorkerStartup, made in a session, as worker_spi_launch makes them.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, ClassVar

import psycopg

from benchmarks.harness import DEADLINE
from benchmarks.peers.way import Call, Way, timed

_SOURCE = Path(__file__).parent / "postgresql_worker.c"


def installation() -> Path | None:
    """Return the directory of Debian's newest server, if there is one."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3].partition(".")[0]))
    return found[-1].parent.parent if found else None


class PostgreSQL(Way):
    """A server with fsync off (nothing is written that is measured); its workers are C and hold no connection."""

    name = "PostgreSQL"
    tells = frozenset({"one", "all"})
    note = "workers in C"
    crash_takes_all = True
    connects: ClassVar[bool] = False

    @classmethod
    def missing(cls) -> str:
        home = installation()
        if home is None:
            return "no server in /usr/lib/postgresql"
        if not Path(f"/usr/include/postgresql/{home.name}/server/postmaster/bgworker.h").exists():
            return f"postgresql-server-dev-{home.name} is not installed"
        if not shutil.which("gcc"):
            return "no C compiler"
        if os.geteuid() == 0 and not _service_user():
            return "no user postgres, and root may not run a server"
        return ""

    def prepare(self, static: int, dynamic: int) -> None:
        home = installation()
        assert home is not None
        self._bin = home / "bin"
        self._options: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        self.directory.chmod(0o711)
        place = self.directory / "pg"
        place.mkdir()
        library = place / "postgresql_worker.so"
        headers = f"/usr/include/postgresql/{home.name}/server"
        subprocess.run(
            ["gcc", "-O2", "-shared", "-fPIC", "-I", headers, "-o", str(library), str(_SOURCE)],
            check=True,
            capture_output=True,
            timeout=DEADLINE,
        )
        if os.geteuid() == 0:
            shutil.chown(place, "postgres")
        self._data = place / "data"
        subprocess.run(
            [str(self._bin / "initdb"), "-D", str(self._data), "-U", "bench", "-A", "trust", "--no-sync", "--locale=C"],
            check=True,
            capture_output=True,
            timeout=DEADLINE,
            cwd="/",
            **self._options,
        )
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": place,
            "shared_preload_libraries": "postgresql_worker",
            "dynamic_library_path": f"{place}:$libdir",
            "max_worker_processes": static + dynamic + 8,
            "bench.beacon": self.beacon.path,
            "bench.static_workers": static,
            "fsync": "off",
        }
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{key} = '{value}'\n" for key, value in settings.items())

    def spawn(self) -> None:
        self.run([str(self._bin / "postgres"), "-D", str(self._data)], **self._options)

    def await_ready(self) -> None:
        def connect() -> bool:
            try:
                self._connection = psycopg.connect(self._url(), autocommit=True)
            except psycopg.OperationalError:
                return False
            return True

        self.until(connect)
        self._connection.execute(
            "CREATE OR REPLACE FUNCTION bench_launch(int4, bool, bool) RETURNS int4 AS 'postgresql_worker' LANGUAGE C STRICT"
        )

    def _url(self) -> str:
        return f"postgresql://bench@/postgres?host={self._data.parent}"

    def _query(self, query: str, *arguments: Any) -> Any:
        return self._connection.execute(query.encode(), arguments, prepare=True).fetchall()

    def launch(self, number: int) -> Call:
        return timed(lambda: self._query("SELECT bench_launch(%s, %s, true)", number, self.connects))

    def launch_all(self, numbers: range) -> None:
        self._query(
            "SELECT bench_launch(n, %s, false) FROM generate_series(%s::int, %s::int) n", self.connects, numbers[0], numbers[-1]
        )

    def stop(self) -> None:
        self.signal(signal.SIGINT)

    def status_one(self, number: int) -> Call:
        return timed(lambda: self._query("SELECT pid, state FROM pg_stat_activity WHERE pid = %s", number))

    def status_all(self) -> Call:
        return timed(lambda: self._query("SELECT * FROM pg_stat_activity WHERE backend_type = 'benchmark'"))

    def command(self) -> list[str]:
        return ["psql", "-X", "-d", self._url(), "-Atc", "SELECT pid, state FROM pg_stat_activity"]

    def close(self) -> None:
        if hasattr(self, "_connection"):
            self._connection.close()
        super().close()


class PostgreSQLConnected(PostgreSQL):
    """Its workers report with their connection open."""

    name = "PostgreSQL"
    connects = True


def _service_user() -> bool:
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        return False
    return True
