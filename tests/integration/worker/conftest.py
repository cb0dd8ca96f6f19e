"""Fixtures: a host that the test plays, and a PostgreSQL to connect to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.integration.worker.driving import PlayedHost
from tests.integration.worker.server import Server


@pytest.fixture
def host() -> Iterator[PlayedHost]:
    """A host that the test plays; no worker of it survives the test."""
    played = PlayedHost()
    yield played
    played.close()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server with trust authentication, superuser "postgres"."""
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def database(server: Server) -> dict[str, Any]:
    """What the host tells a worker about that server."""
    return {"kind": "embedded", "conninfo": server.conninfo, "role": None}
