"""wake_on: notifications reach the host, and what may have been missed is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from psycopg import sql
from tests.integration.database.driving import FakeHost, Server, wait_until


def notify(server: Server, channel: str, payload: str = "", database: str = "postgres") -> None:
    """Notify as an application does."""
    with server.connect(dbname=database) as connection:
        connection.execute("SELECT pg_notify(%s, %s)", (channel, payload))


def listeners(server: Server) -> list[str]:
    """Return the databases that a connection of ours listens in."""
    with server.connect() as connection:
        rows = connection.execute("SELECT datname FROM pg_stat_activity WHERE application_name = 'bgworker listener' ORDER BY 1")
        return [name for (name,) in rows]


def test_notifications_arrive_in_order_with_their_payload(host: FakeHost, shared_server: Server) -> None:
    """C26 C27: what is committed arrives in commit order, duplicates folded, rolled back ones not at all, any channel name."""
    host.external(shared_server.url)
    name = 'Bestell "Ungen" öäü'
    host.send(type="listen", channels={"postgres": ["orders", name]})
    host.phase("recovery_finished")
    assert host.received("gap")["channels"] == sorted(["orders", name])
    with shared_server.connect() as connection:
        with connection.transaction():
            for payload in ("1", "2", "2", "3"):
                connection.execute("SELECT pg_notify('orders', %s)", (payload,))
        with connection.transaction(force_rollback=True):
            connection.execute("SELECT pg_notify('orders', 'never')")
        connection.execute(sql.SQL("NOTIFY {}, {}").format(sql.Identifier(name), "ä" * 3000))
        connection.execute("NOTIFY orders")
    host.received("notify", channel="orders", payload="")
    found = [(m["database"], m["channel"], m["payload"]) for m in host.messages("notify")]
    assert found == [
        *(("postgres", "orders", payload) for payload in ("1", "2", "3")),
        ("postgres", name, "ä" * 3000),
        ("postgres", "orders", ""),
    ]


def test_one_connection_per_database(host: FakeHost, shared_server: Server) -> None:
    """However many channels, a database has one listening connection, and none when nobody wants it any more."""
    with shared_server.connect() as connection:
        connection.execute("CREATE DATABASE shop")
    host.external(shared_server.url)
    host.phase("recovery_finished")
    host.send(type="listen", channels={"postgres": ["a", "b"], "shop": ["a", "c"]})
    host.received("gap", database="postgres")
    host.received("gap", database="shop")
    wait_until(lambda: listeners(shared_server) == ["postgres", "shop"], "one listener for each database")
    notify(shared_server, "c", "x", "shop")
    host.received("notify", database="shop", channel="c", payload="x")
    # The set is replaced: only what is new is a gap, and what is gone is heard no more.
    mark = host.mark()
    host.send(type="listen", channels={"postgres": ["b", "d"]})
    assert host.received("gap", mark)["channels"] == ["d"]
    wait_until(lambda: listeners(shared_server) == ["postgres"], "the end of the other listener")
    notify(shared_server, "a", "unheard")
    notify(shared_server, "b", "heard")
    host.received("notify", channel="b", payload="heard")
    assert "unheard" not in str(host.messages("notify"))
    host.send(type="listen", channels={})
    wait_until(lambda: listeners(shared_server) == [], "the end of all listeners")


def test_lost_listener_comes_back_with_a_gap(host: FakeHost, shared_server: Server) -> None:
    """T74: a listening connection that breaks is made again, and the channels that may have missed something are named."""
    host.external(shared_server.url)
    host.send(type="listen", channels={"postgres": ["a", "b"]})
    host.received("gap")
    mark = host.mark()
    with shared_server.connect() as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'bgworker listener'")
    assert host.received("gap", mark)["channels"] == ["a", "b"]
    assert "terminating connection due to administrator command" in host.received("log", mark, level="WARNING")["message"]
    notify(shared_server, "a", "again")
    host.received("notify", mark, payload="again")


def test_restart_of_the_server_is_a_gap(host: FakeHost, server: Server) -> None:
    """After a restart of the server the listener is there again as soon as the phase is."""
    host.external(server.url)
    host.send(type="listen", channels={"postgres": ["a"]})
    host.received("gap")
    mark = host.mark()
    server.stop()
    server.start()
    host.received("gap", mark)
    notify(server, "a", "again")
    host.received("notify", mark, payload="again")


def test_listening_on_the_embedded_server(running: FakeHost) -> None:
    """The embedded server is no different; a channel can be wanted before the server runs."""
    running.send(type="listen", channels={"postgres": ["a"]})
    running.received("gap")
    with running.connect() as connection:
        connection.execute("NOTIFY a, 'hello'")
    assert running.received("notify")["payload"] == "hello"
    assert running.stop() < 2


def test_database_that_is_missing_is_said_once_and_found_later(host: FakeHost, shared_server: Server) -> None:
    """A database that does not exist is one warning; it is listened to when it does."""
    host.external(shared_server.url)
    host.phase("recovery_finished")
    host.send(type="listen", channels={"later": ["a"]})
    assert 'database "later" does not exist' in host.received("log", level="WARNING")["message"]
    with shared_server.connect() as connection:
        connection.execute("CREATE DATABASE later")
    host.received("gap", database="later")
    assert len(host.messages("log")) == 1


def test_empty_name_is_the_urls_own_database(host: FakeHost, shared_server: Server) -> None:
    """A worker that connects to the url's own database is listened for there."""
    host.external(shared_server.url)
    host.send(type="listen", channels={"": ["a"]})
    assert host.received("gap")["database"] == ""
    notify(shared_server, "a", "x")
    host.received("notify", database="", payload="x")


def test_burst_of_notifications_is_complete(make_host: Callable[..., FakeHost], shared_server: Server) -> None:
    """T74: thousands of notifications in one commit all arrive."""
    host = make_host()
    host.external(shared_server.url)
    host.send(type="listen", channels={"postgres": ["a"]})
    host.received("gap")
    with shared_server.connect() as connection:
        connection.execute("SELECT count(pg_notify('a', n::text)) FROM generate_series(1, 5000) n")
    host.received("notify", payload="5000")
    assert [int(m["payload"]) for m in host.messages("notify")] == list(range(1, 5001))


def test_standby_says_that_it_cannot_listen(host: FakeHost, shared_server: Server, open_directory: Path) -> None:
    """C27: on a standby the phase's detail says why wake_on is deaf; after the promotion the channels are heard, after a gap."""
    standby = Server(open_directory / "standby")
    standby.directory.mkdir()
    standby.base_backup(shared_server)
    standby.start()
    try:
        host.external(standby.url)
        host.phase("consistent")
        assert "wake_on" not in host.messages("phase")[-1]["detail"]
        host.send(type="listen", channels={"": ["a"]})
        host.phase("consistent", containing="wake_on cannot work here, LISTEN needs a primary")
        with standby.connect() as connection:
            connection.execute("SELECT pg_promote(wait => false)")
        host.received("gap", database="")
        notify_at(standby, "promoted")
        host.received("notify", payload="promoted")
        assert "wake_on" not in host.messages("phase")[-1]["detail"]
        assert host.messages("log") == []
    finally:
        standby.stop()


def notify_at(server: Server, payload: str) -> None:
    """Notify on channel "a" of a server."""
    with server.connect() as connection:
        connection.execute("SELECT pg_notify('a', %s)", (payload,))


def test_payload_that_is_no_utf8(host: FakeHost, shared_server: Server) -> None:
    """C26 C27: of a database without an encoding any bytes arrive; what is no UTF-8 becomes replacement characters."""
    with shared_server.connect() as connection:
        connection.execute("CREATE DATABASE bytes ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'")
    host.external(shared_server.url)
    host.send(type="listen", channels={"bytes": ["a"]})
    host.received("gap", database="bytes")
    with shared_server.connect(dbname="bytes", client_encoding="SQL_ASCII") as connection:
        connection.execute("NOTIFY a, E'\\xff\\xfe'")
    assert host.received("notify", database="bytes")["payload"] == "\ufffd\ufffd"


def test_database_without_a_listener_is_named_to_the_host(host: FakeHost, shared_server: Server) -> None:
    """C27: the host is told where nothing is heard and why, at each try; the log says it once."""
    host.external(shared_server.url)
    host.phase("recovery_finished")
    host.send(type="listen", channels={"nowhere": ["a"]})
    message = host.received("deaf")
    assert (message["database"], message["name"]) == ("nowhere", "nowhere")
    assert 'database "nowhere" does not exist' in message["reason"]
    wait_until(lambda: host.read(0.1) is not None and len(host.messages("deaf")) > 1, "another try")
    assert len(host.messages("log")) == 1
