"""What a server that somebody else runs may refuse: one clear reason, tried again, and all is well when it is mended."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from tests.integration.database.driving import FakeHost, Server
from tests.integration.database.stub import StubServer

Url = Callable[..., str]


@pytest.fixture
def url(shared_server: Server) -> Iterator[Url]:
    """Make urls of the role clerk, who may log in and no more, and of the database clerks, which it owns; gone afterwards."""
    with shared_server.connect() as administrator:
        administrator.execute("CREATE ROLE clerk LOGIN PASSWORD 'sesame'")
        administrator.execute("CREATE DATABASE clerks OWNER clerk")
        yield lambda password="sesame": f"postgresql://clerk:{password}@127.0.0.1:{shared_server.port}/clerks"
        administrator.execute("DROP DATABASE IF EXISTS clerks WITH (FORCE)")
        administrator.execute("DROP ROLE IF EXISTS clerk")


def assert_mended(host: FakeHost, expected: str, mend: Callable[[], object]) -> None:
    """Check the one reason, in status and once in the log, and that the phase follows the mending."""
    detail = host.phase("unreachable", containing=expected)["detail"]
    assert "; next try in " in detail
    assert "sesame" not in detail
    # The try after it has the same reason.
    host.phase("unreachable", containing="(try 3)")
    warning = host.received("log", level="WARNING")
    assert expected in warning["message"]
    assert len(host.messages("log")) == 1
    mark = host.mark()
    mend()
    host.phase("recovery_finished", mark)
    answers = host.received("log", mark, level="LOG")
    assert answers["message"] == "database answers again: it is read-write"


@pytest.mark.parametrize(
    ("breaking", "expected", "mending"),
    [
        ("DROP DATABASE clerks", 'database "clerks" does not exist', "CREATE DATABASE clerks OWNER clerk"),
        ("ALTER ROLE clerk NOLOGIN", 'role "clerk" is not permitted to log in', "ALTER ROLE clerk LOGIN"),
        ("ALTER ROLE clerk RENAME TO clark", 'password authentication failed for user "clerk"', "ALTER ROLE clark RENAME TO clerk"),
        (
            "ALTER ROLE clerk PASSWORD 'other'",
            'password authentication failed for user "clerk"',
            "ALTER ROLE clerk PASSWORD 'sesame'",
        ),
        (
            "REVOKE CONNECT ON DATABASE clerks FROM clerk, public",
            'permission denied for database "clerks"',
            "GRANT CONNECT ON DATABASE clerks TO clerk",
        ),
        (
            "ALTER ROLE clerk CONNECTION LIMIT 0",
            'too many connections for role "clerk"',
            "ALTER ROLE clerk CONNECTION LIMIT -1",
        ),
        # The watch gets in, and takes the one connection that there is.
        (
            "ALTER ROLE clerk CONNECTION LIMIT 1",
            'too many connections for role "clerk"',
            "ALTER ROLE clerk CONNECTION LIMIT -1",
        ),
        (
            "ALTER DATABASE clerks ALLOW_CONNECTIONS false",
            'database "clerks" is not currently accepting connections',
            "ALTER DATABASE clerks ALLOW_CONNECTIONS true",
        ),
    ],
)
def test_refusal_is_one_reason_until_it_is_mended(
    host: FakeHost, shared_server: Server, url: Url, breaking: str, expected: str, mending: str
) -> None:
    """What is wrong with role or database is said in the server's words, and seen when it is put right."""
    with shared_server.connect() as administrator:
        administrator.execute(breaking)
        try:
            host.external(url())
            assert_mended(host, expected, lambda: administrator.execute(mending))
        finally:
            if administrator.execute("SELECT 1 FROM pg_roles WHERE rolname = 'clark'").fetchone():
                administrator.execute("ALTER ROLE clark RENAME TO clerk")


def test_refusal_of_pg_hba(host: FakeHost, shared_server: Server, url: Url) -> None:
    """An address that pg_hba.conf does not let in is such a reason, too."""
    rules = shared_server.data / "pg_hba.conf"
    before = rules.read_text()
    with shared_server.connect() as administrator:

        def allow(text: str) -> None:
            rules.write_text(text)
            administrator.execute("SELECT pg_reload_conf()")

        allow(f"host all clerk 127.0.0.1/32 reject\n{before}")
        try:
            host.external(url())
            assert_mended(host, "pg_hba.conf rejects connection", lambda: allow(before))
        finally:
            allow(before)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("57P03", "the database system is starting up"),
        ("57P03", "the database system is shutting down"),
        ("53300", "sorry, too many clients already"),
    ],
)
def test_server_that_is_not_ready(host: FakeHost, state: str, message: str) -> None:
    """A server between two states, or one that is full, is waited for."""
    with StubServer("18.4", 180004) as stub:
        stub.refusal = (state, message)
        host.external(stub.url)
        assert_mended(host, message, lambda: setattr(stub, "refusal", None))


def test_server_that_is_too_old(host: FakeHost) -> None:
    """A server older than PostgreSQL 12: one error with its version, no worker is let in, and an upgrade is noticed."""
    with StubServer("9.6.24", 90624) as stub:
        host.external(stub.url)
        detail = host.phase("unreachable")["detail"]
        assert detail == "the server is PostgreSQL 9.6.24, and the oldest that can be used is 12"
        error = host.received("log", level="ERROR")
        assert error["message"] == f"database cannot be used: {detail}"
        assert error["hint"]
        mark = host.mark()
        stub.release = ("12.0", 120000)
        stub.disconnect_all()
        host.phase("recovery_finished", mark)
        # A connection that was being made just then may be one more line; the refusal is not said twice.
        assert sum("cannot be used" in said["message"] for said in host.messages("log")) == 1
