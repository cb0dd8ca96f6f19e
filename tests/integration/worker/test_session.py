"""What a session is by default, and what the bypass flags make of it, against a real server and a host that the test plays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import sql
from tests.integration.worker.driving import Life, PlayedHost
from tests.integration.worker.server import Server

from bgworker._spec import DATABASE_WORKER_FLAGS

ALLOWCONN, ROLELOGINCHECK = 1, 2
SUCCESS = {"error": "", "sqlstate": "", "detail": "", "hint": ""}
LIBRARIES = ("dbfunctions", "aiofunctions")
#: What connection strings, SQL and shells each have their own ideas about; the last one is as long as a name may be.
ODD_NAMES = ["it's", 'a "quoted" one', "mit Leerzeichen und Übeln", "postgresql://a=b", "\\", "ü" * 31 + "x"]


@pytest.fixture(scope="module")
def places(server: Server) -> Iterator[None]:
    with server.connect() as connection:
        for name in ODD_NAMES:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    server.run("CREATE ROLE weak LOGIN", "CREATE ROLE mute", "CREATE DATABASE shut ALLOW_CONNECTIONS false")
    server.run("REVOKE CONNECT ON DATABASE shut FROM PUBLIC", "CREATE DATABASE walled")
    server.run("REVOKE CONNECT ON DATABASE walled FROM PUBLIC", "GRANT CREATE ON DATABASE shut TO mute, weak")
    yield
    with server.connect() as connection:
        for name in [*ODD_NAMES, "shut", "walled"]:
            connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))
        for name in [*ODD_NAMES, "weak", "mute"]:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def start(host: PlayedHost, database: dict[str, Any]) -> Any:
    """Start a database worker that connects as asked."""

    def start(arg: dict[str, Any], library: str = "dbfunctions", **keys: Any) -> Life:
        changes = {"bgw_flags": DATABASE_WORKER_FLAGS, "database": database, **keys}
        return host.start("session", arg, library=library, **changes)

    return start


def facts(server: Server, more: str) -> dict[str, Any]:
    """Return what the host says about a server whose url has these parameters as well."""
    return {"kind": "external", "conninfo": f"{server.conninfo} {more}", "role": None}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("arg", "more", "outcome"),
    [
        ({}, "", "25006 cannot execute CREATE TABLE in a read-only transaction"),
        ({"username": "postgres"}, "", "25006"),
        ({"how": "initialize_connection_by_oid"}, "", "25006"),
        ({"how": "initialize_connection_by_oid", "useroid": 10}, "", "25006"),
        ({"dbname": "postgres"}, "", "written"),
        ({}, "options='-c default_transaction_read_only=off'", "written"),
    ],
)
def test_no_database_named_is_read_only(
    start: Any, server: Server, library: str, arg: dict[str, Any], more: str, outcome: str
) -> None:
    """C16: without a database the session is in the configured one and reads; what the url's options say is respected."""
    out = start(dict(arg), library, database=facts(server, more)).read("out")
    assert out.splitlines()[0] == "('postgres', 'postgres', 'postgres')"
    assert outcome in out


def test_connect_is_read_write(start: Any) -> None:
    """C16, C17: connect() is the configured database to work in, connect_database() to an async worker."""
    assert "written" in start({"how": "connect"}).read("out")
    assert "written" in start({"how": "connect_database"}, "aiofunctions").read("out")


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.usefixtures("places")
def test_odd_names(start: Any, server: Server, name: str) -> None:
    """C15: quotes, spaces, backslashes, what looks like a url, and 63 bytes of UTF-8 are names, by name and by oid, as a bypass."""
    assert len(name.encode()) <= 63
    life = start({"dbname": name, "username": name})
    assert life.read("out").startswith(str((name, name, name))), life.read("err")
    assert start({"dbname": name, "username": name, "flags": ROLELOGINCHECK}).read("out").startswith(str((name, name, name)))
    by_name = "SELECT oid::bigint FROM pg_database WHERE datname = %s"
    life = start({"how": "initialize_connection_by_oid", "dboid": server.value(by_name, name)})
    assert life.read("out").startswith(str((name, "postgres", "postgres")))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("arg", "refusal"),
    [
        ({"dbname": "nowhere"}, '3D000 connection failed: .*FATAL:  database "nowhere" does not exist'),
        ({"username": "nobody_at_all"}, '28000 connection failed: .*role "nobody_at_all" does not exist'),
        ({"username": "mute"}, '28000 connection failed: .*role "mute" is not permitted to log in'),
        ({"dbname": "shut"}, '55000 connection failed: .*database "shut" is not currently accepting connections'),
        ({"dbname": "walled", "username": "weak"}, '42501 connection failed: .*permission denied for database "walled"'),
        ({"dbname": "walled", "username": "mute", "flags": ROLELOGINCHECK}, '42501 permission denied for database "walled"'),
    ],
)
@pytest.mark.usefixtures("places")
def test_refusals_have_their_sqlstate(start: Any, library: str, arg: dict[str, Any], refusal: str) -> None:
    """C15, C18, C19: a refusal of the server's is psycopg's error with the server's words and SQLSTATE; the exit code is 1."""
    import re

    life = start(dict(arg), library)
    assert life.wait() == 1
    assert re.match(refusal, life.read("out"))


@pytest.mark.usefixtures("places")
def test_nologin_bypass_without_a_superuser(start: Any, server: Server) -> None:
    """C19: where the configured role is no superuser, one error says which right is missing and what to do."""
    life = start({"username": "mute", "flags": ROLELOGINCHECK}, database=facts(server, "user=weak"))
    assert life.wait() == 1
    said = life.read("out")
    assert said.startswith('42501 background worker "tested" cannot run as role "mute": the configured role is no superuser\n')
    assert "needs SUPERUSER" in said
    assert 'permission denied to set session authorization "mute"' in said
    assert "HINT:  Name a superuser in [database] url" in said


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("arg", "outcome"),
    [
        ({"flags": ALLOWCONN}, "('shut', 'postgres', 'postgres')"),
        ({"username": "weak", "flags": ALLOWCONN}, "('shut', 'weak', 'weak')"),
        ({"username": "mute", "flags": ALLOWCONN | ROLELOGINCHECK}, "('shut', 'mute', 'mute')"),
        ({"username": "mute", "flags": ALLOWCONN}, '28000 role "mute" is not permitted to log in'),
        ({"username": "nobody", "flags": ALLOWCONN}, '28000 role "nobody" does not exist'),
    ],
)
@pytest.mark.usefixtures("places")
def test_allowconn_asks_the_host(start: Any, server: Server, library: str, arg: dict[str, Any], outcome: str) -> None:
    """C18: the worker has the database opened, connects, says so, and is the role asked for; ALLOWCONN is no other bypass."""
    life = start({"dbname": "shut", **arg}, library)
    request = life.receive("open_database")
    assert (request["method"], request["params"]) == ("open_database", {"database": "shut"})
    server.run("ALTER DATABASE shut WITH ALLOW_CONNECTIONS true CONNECTION LIMIT 0")
    life.send({"id": request["id"], "result": SUCCESS})
    life.serve("close_database", {})
    server.run("ALTER DATABASE shut WITH ALLOW_CONNECTIONS false CONNECTION LIMIT -1")
    assert outcome in life.read("out")


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.usefixtures("places")
def test_refused_opening(start: Any, library: str) -> None:
    """C18: what the database process or the host says in place of opening is the worker's error, and the request is ended."""
    refusal = {"error": "no superuser", "sqlstate": "42501", "detail": "Because.", "hint": "Act."}
    life = start({"dbname": "shut", "flags": ALLOWCONN}, library)
    life.serve("open_database", refusal)
    life.serve("close_database", {})
    assert life.wait() == 1
    assert life.read("out") == "42501 no superuser\nDETAIL:  Because.\nHINT:  Act.\n"
    assert "psycopg.errors.InsufficientPrivilege: no superuser" in life.read("err")
    life = start({"dbname": "shut", "flags": ALLOWCONN}, library)
    life.serve("open_database", {**refusal, "sqlstate": ""})
    assert life.wait() == 1
    assert "HostError: no superuser" in life.read("err")


@pytest.mark.usefixtures("places")
def test_worker_that_is_told_to_end_while_it_waits(host: PlayedHost, database: dict[str, Any]) -> None:
    """C18, C22: SIGTERM ends the wait for the host's answer, and the request with it."""
    import signal

    changes = {"bgw_flags": DATABASE_WORKER_FLAGS, "database": database}
    life = host.start("unblocked_session", {"dbname": "shut", "flags": ALLOWCONN}, library="dbfunctions", **changes)
    assert life.receive("open_database")["method"] == "open_database"
    life.signal(signal.SIGTERM)
    assert life.receive("close_database")["method"] == "close_database"
    assert life.wait() == 1
