"""A server that somebody else runs: its phase, its absence, and what of its url is shown."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from tests.integration.database.driving import FakeHost, Server, free_port


def test_primary_is_read_write_and_gets_timeouts(host: FakeHost, shared_server: Server) -> None:
    """C07: a primary is phase recovery_finished; workers get the whole url with timeouts, the public one has no password."""
    host.external(shared_server.url)
    message = host.phase("recovery_finished")
    assert message["detail"] == ""
    assert message["url"] == f"postgresql://postgres@127.0.0.1:{shared_server.port}/postgres"
    parameters = psycopg.conninfo.conninfo_to_dict(message["conninfo"])
    assert parameters["password"] == "sesame"
    assert {key: parameters[key] for key in ("keepalives_idle", "tcp_user_timeout", "connect_timeout")} == {
        "keepalives_idle": "30",
        "tcp_user_timeout": "30000",
        "connect_timeout": "10",
    }
    with host.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert host.stop() < 2
    assert shared_server.answers()


def test_password_from_libpqs_own_places(make_host: Callable[..., FakeHost], shared_server: Server, open_directory: Path) -> None:
    """A url without a password, with PGPASSFILE in the environment, works as with any libpq program; {env = NAME} is read here."""
    passfile = open_directory / "passfile"
    passfile.write_text("*:*:*:*:sesame\n")
    passfile.chmod(0o600)
    url = f"host=127.0.0.1 port={shared_server.port} user=postgres dbname=postgres connect_timeout=3"
    host = make_host(PGPASSFILE=str(passfile), DATABASE_URL=url)
    host.external({"env": "DATABASE_URL"})
    conninfo = host.phase("recovery_finished")["conninfo"]
    assert psycopg.conninfo.conninfo_to_dict(conninfo)["connect_timeout"] == "3"


def test_absent_server_is_tried_again_until_it_is_there(host: FakeHost, make_server: Callable[[], Server]) -> None:
    """A server that is not there yet: unreachable, libpq's words, when it is tried next with growing delays; then read-write."""
    server = make_server()
    host.external(server.url)
    detail = host.phase("unreachable", containing="try 4")["detail"]
    assert "Connection refused" in detail
    delays = [
        float(m["detail"].rpartition("next try in ")[2].split()[0]) for m in host.messages("phase") if "next try" in m["detail"]
    ]
    assert delays[2] > delays[0]
    server.start()
    host.phase("recovery_finished")


def test_restart_of_the_server_is_noticed(host: FakeHost, server: Server) -> None:
    """A shutdown is noticed at once, without polling, with the server's reason; so is the return."""
    host.external(server.url)
    host.phase("recovery_finished")
    mark = host.mark()
    server.stop(signal.SIGINT)
    assert "next try in" in host.phase("unreachable", mark)["detail"]
    server.start()
    host.phase("recovery_finished", mark)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://postgres:secret-word@127.0.0.1:{port}/missing", 'database "missing" does not exist'),
        ("postgresql://stranger:sesame@127.0.0.1:{port}/postgres", "password authentication failed"),
        ("postgresql://postgres:secret-word@127.0.0.1:{port}/postgres", "password authentication failed"),
        ("postgresql://postgres:secret-word@no-such-host.invalid:{port}/postgres", "failed to resolve host"),
        ("postgresql://postgres:secret-word@127.0.0.1:{port}/postgres?sslmode=require", "SSL"),
        ("postgresql://postgres:secret@word@127.0.0.1:{port}/postgres", "percent-encoded"),
        ("postgresql://postgres:secret/word@127.0.0.1:{port}/postgres", "percent-encoded"),
        ("postgresql://postgres:secret-word@127.0.0.1:{port}/postgres?colour=secret", "database url cannot be read"),
        ("host=127.0.0.1 password=secret word", "database url cannot be read"),
        ("", "it is empty"),
        ({"env": "NOT_SET_ANYWHERE"}, 'environment variable "NOT_SET_ANYWHERE" is not set'),
    ],
)
def test_wrong_url_is_one_clear_error(host: FakeHost, shared_server: Server, url: str | dict[str, str], expected: str) -> None:
    """Whatever is wrong with the url: unreachable with the reason, nothing of the password anywhere, and the process stays."""
    if isinstance(url, str):
        url = url.format(port=shared_server.port)
        if "/missing" in url:
            url = url.replace("secret-word", "sesame")
    host.external(url)
    assert expected in host.phase("unreachable")["detail"]
    host.read(0.1)
    for message in host.messages("phase") + host.messages("log"):
        shown = {key: value for key, value in message.items() if key not in ("conninfo", "direct_conninfo")}
        assert "secret" not in str(shown)
        assert "sesame" not in str(shown)
    assert host.stop() < 2


def test_silent_server_is_given_up_and_does_not_block(host: FakeHost) -> None:
    """A peer that accepts and never answers: the attempt ends after connect_timeout, and the process obeys a stop meanwhile."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        host.external(f"postgresql://me@127.0.0.1:{listener.getsockname()[1]}/x?connect_timeout=2")
        host.phase("starting")
        assert "127.0.0.1 has not answered for 2 s" in host.phase("unreachable")["detail"]
        assert host.stop() < 1


def test_restarted_database_process_does_not_unsettle_the_host(host: FakeHost, shared_server: Server) -> None:
    """A database process that replaces a dead one says what is, not that everything begins anew."""
    host.external(shared_server.url)
    host.phase("recovery_finished")
    mark = host.mark()
    host.external(shared_server.url, phase="recovery_finished")
    host.phase("recovery_finished", mark)
    assert {message["phase"] for message in host.messages("phase")} == {"recovery_finished"}


def test_several_hosts_are_tried_in_turn(host: FakeHost, shared_server: Server) -> None:
    """Libpq's way with several hosts: the first that fits is taken."""
    url = f"postgresql://postgres:sesame@127.0.0.1:{free_port()},127.0.0.1:{shared_server.port}/postgres?target_session_attrs=read-write"
    host.external(url)
    message = host.phase("recovery_finished")
    assert f",127.0.0.1:{shared_server.port}/postgres" in message["url"]
    with host.connect() as connection:
        connection.execute("SELECT 1")


def test_host_name_is_resolved_off_the_loop(host: FakeHost, shared_server: Server) -> None:
    """A name instead of an address works (it is looked up in a thread, so that a dead name server blocks nobody)."""
    host.external(f"postgresql://postgres:sesame@localhost:{shared_server.port}/postgres")
    host.phase("recovery_finished")


def test_standby_is_consistent_and_promotion_is_seen(host: FakeHost, shared_server: Server, open_directory: Path) -> None:
    """C07: a hot standby is phase consistent, and after its promotion recovery_finished within a second."""
    standby = Server(open_directory / "standby")
    standby.directory.mkdir()
    standby.base_backup(shared_server)
    standby.start()
    try:
        host.external(standby.url)
        message = host.phase("consistent")
        assert "standby" in message["detail"]
        host.send(type="listen", channels={"postgres": ["orders"]})
        host.phase("consistent", containing="wake_on cannot work here, LISTEN needs a primary")
        with standby.connect() as connection:
            mark = host.mark()
            connection.execute("SELECT pg_promote()")
        begin = time.monotonic()
        host.phase("recovery_finished", mark)
        assert time.monotonic() - begin < 1.0
        host.received("gap", mark)
    finally:
        standby.stop()


def test_direct_url_is_for_our_connections_only(host: FakeHost, shared_server: Server) -> None:
    """Phase and LISTEN use direct_url, workers get both; they wait until url answers, too."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # nobody listens on it, and nobody else can
        port = reserved.getsockname()[1]
        host.external(f"postgresql://postgres:sesame@127.0.0.1:{port}/postgres", direct_url=shared_server.url)
        detail = host.phase("unreachable", containing="next try in")["detail"]
        assert detail.startswith("url: ")
        assert "Connection refused" in detail
        mark = host.mark()
    host.external(f"postgresql://postgres:sesame@127.0.0.1:{shared_server.port}/template1", direct_url=shared_server.url)
    message = host.phase("recovery_finished", mark)
    assert message["url"] == f"postgresql://postgres@127.0.0.1:{shared_server.port}/template1"
    assert not message["is_pooled"]
    assert psycopg.conninfo.conninfo_to_dict(message["direct_conninfo"])["dbname"] == "postgres"
    host.send(type="listen", channels={"": ["orders"]})
    host.received("gap")
    with shared_server.connect() as connection:
        query = "SELECT datname FROM pg_stat_activity WHERE application_name = 'bgworker listener'"
        assert connection.execute(query).fetchall() == [("postgres",)]
