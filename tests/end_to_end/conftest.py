"""The fixtures of ``bgworker.testing``, under the names that these tests use, and servers that somebody else runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bgworker.testing import RunningHost
from tests.end_to_end.terminals import Terminal
from tests.integration.database.driving import Server, as_service, give_away


@pytest.fixture(scope="session")
def embedded_data() -> Iterator[Callable[[], Path]]:
    """The data directory of a host that has made its embedded PostgreSQL and ended, made when first asked for."""
    with tempfile.TemporaryDirectory(prefix="bgworker-test-") as name:
        directory = Path(name)
        directory.chmod(0o711)

        def data() -> Path:
            host = RunningHost(directory, '[database]\nurl = "embedded"\n')
            if not (host.data_directory / "pg").exists():
                host.start_and_wait()
                host.close()
            return host.data_directory

        yield data


@pytest.fixture
def bgworker_host(bgworker_host: Callable[..., RunningHost], embedded_data: Callable[[], Path]) -> Callable[..., RunningHost]:
    """Return the same maker, whose hosts find the files of their embedded PostgreSQL: initdb takes longer than most tests."""

    def make(configuration: str = "", *, start: bool = True, **modules: str) -> RunningHost:
        host = bgworker_host(configuration, start=False, **modules)
        if 'url = "embedded"' in configuration:
            data = embedded_data()
            host.data_directory.mkdir(mode=data.stat().st_mode & 0o777)
            subprocess.run(["cp", "-a", "--reflink=auto", str(data / "pg"), str(host.data_directory)], check=True)
        if start:
            host.start_and_wait()
        return host

    return make


@pytest.fixture
def make_host(bgworker_host: Callable[..., RunningHost]) -> Callable[..., RunningHost]:
    """Return a maker of hosts that are not started yet."""

    def make(configuration: str = "", **modules: str) -> RunningHost:
        return bgworker_host(configuration, start=False, **modules)

    return make


@pytest.fixture
def host(bgworker_host: Callable[..., RunningHost]) -> RunningHost:
    """Return a running host without a database and without workers."""
    return bgworker_host("[host]\nmax_worker_processes = 8\n")


@pytest.fixture(scope="session")
def new_cluster() -> Iterator[Path]:
    """A data directory as initdb makes it, to be copied."""
    with tempfile.TemporaryDirectory(prefix="bgwcluster", dir="/tmp") as name:
        os.chmod(name, 0o755)
        data = Path(name) / "data"
        data.mkdir(mode=0o700)
        give_away(data)
        arguments = ("-D", str(data), "-U", "postgres", "--auth=trust", "--no-sync", "--no-instructions")
        subprocess.run(as_service("initdb", *arguments), check=True, stderr=subprocess.DEVNULL, timeout=60)
        yield data


@pytest.fixture
def make_server(new_cluster: Path) -> Iterator[Callable[..., Server]]:
    """Return a maker of servers that are not started yet: ``make_server()``, or ``make_server(primary)`` for its standby."""
    base = Path(tempfile.mkdtemp(prefix="bgwservers", dir="/tmp"))
    base.chmod(0o755)
    servers: list[Server] = []

    def make(primary: Server | None = None) -> Server:
        directory = base / str(len(servers))
        directory.mkdir()
        give_away(directory)
        server = Server(directory)
        servers.append(server)
        if primary is None:
            subprocess.run(["cp", "-a", str(new_cluster), str(server.data)], check=True)
        else:
            server.base_backup(primary)
        return server

    yield make
    for server in servers:
        server.stop()
    shutil.rmtree(base)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """A maker of terminals."""
    made: list[Terminal] = []

    def make(host: RunningHost, *arguments: str, **options: object) -> Terminal:
        made.append(Terminal(host, *arguments, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.close()
