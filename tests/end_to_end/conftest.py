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
from tests.integration.database.driving import Server, as_service, give_away


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
