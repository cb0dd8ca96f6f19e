"""Fixtures: a fake host in a directory of its own, and servers that somebody else runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.database.driving import FakeHost, Server, give_away
from tests.integration.database.pooler import Pooler

from bgworker._database.places import short_directory


def remove_short_directory(data_directory: Path) -> None:
    """Remove what a killed server leaves in /tmp, whoever it ran as."""
    digest = short_directory(os.path.realpath(data_directory)).rpartition("-")[2]
    for place in Path("/tmp").glob(f"bgworker-*-{digest}"):
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user can reach, with a short path."""
    with tempfile.TemporaryDirectory(prefix="bgwdb", dir="/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def make_host(open_directory: Path) -> Iterator[Callable[..., FakeHost]]:
    """Start a fake host; it and its servers are gone when the test is."""
    hosts: list[FakeHost] = []

    def make(data_directory: Path | None = None, **options: Any) -> FakeHost:
        directory = data_directory or open_directory / "data"
        directory.mkdir(mode=0o711, exist_ok=True)
        hosts.append(FakeHost(directory, **options))
        return hosts[-1]

    yield make
    # All of them first: one may wait for the directory of another.
    for host in hosts:
        host.close()
    for host in hosts:
        host.wait_for_end()
        remove_short_directory(host.data_directory)


@pytest.fixture
def host(make_host: Callable[..., FakeHost]) -> FakeHost:
    """A fake host that has started nothing yet."""
    return make_host()


@pytest.fixture(scope="session")
def template() -> Iterator[Path]:
    """The data directory of an embedded server that was started once; making one takes longer than copying it."""
    with tempfile.TemporaryDirectory(prefix="bgwdb", dir="/tmp") as name:
        os.chmod(name, 0o755)
        maker = FakeHost(Path(name))
        try:
            maker.embedded()
            maker.phase("recovery_finished")
            maker.stop()
        finally:
            maker.close()
            maker.wait_for_end()
            remove_short_directory(maker.data_directory)
        yield Path(name) / "pg"


@pytest.fixture
def prepared(host: FakeHost, template: Path) -> FakeHost:
    """A host with a data directory whose server does not run yet."""
    subprocess.run(["cp", "-a", str(template), str(host.data_directory / "pg")], check=True)
    return host


@pytest.fixture
def running(prepared: FakeHost) -> FakeHost:
    """A host whose embedded server runs."""
    prepared.embedded()
    prepared.phase("recovery_finished")
    return prepared


@pytest.fixture(scope="session")
def shared_server(template: Path) -> Iterator[Server]:
    """A server that somebody else runs, for tests that neither stop it nor count what is in it."""
    with tempfile.TemporaryDirectory(prefix="bgwdb", dir="/tmp") as name:
        os.chmod(name, 0o755)
        server = copy_of(template, Path(name) / "server")
        server.start()
        yield server
        server.stop()


def copy_of(template: Path, directory: Path) -> Server:
    """Return a server of its own on a copy of the data directory."""
    directory.mkdir()
    give_away(directory)
    server = Server(directory)
    server.copy(template)
    return server


@pytest.fixture
def make_server(open_directory: Path, template: Path) -> Iterator[Callable[[], Server]]:
    """Prepare a server that somebody else runs; it is stopped when the test ends."""
    servers: list[Server] = []

    def make() -> Server:
        servers.append(copy_of(template, open_directory / f"server{len(servers)}"))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def server(make_server: Callable[[], Server]) -> Server:
    """A server that somebody else runs, and that answers."""
    made = make_server()
    made.start()
    return made


@pytest.fixture
def make_pooler(open_directory: Path) -> Iterator[Callable[..., Pooler]]:
    """Start a PgBouncer before a server; it is stopped when the test ends."""
    poolers: list[Pooler] = []

    def make(server: Server, mode: str, more: str = "") -> Pooler:
        poolers.append(Pooler(open_directory / f"pooler{len(poolers)}", server, mode, more))
        return poolers[-1]

    yield make
    for pooler in poolers:
        pooler.stop()
