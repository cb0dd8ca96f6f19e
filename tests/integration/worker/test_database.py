"""The worker's connection and SPI against a real server."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from tests.integration.stillness import wait_until_still
from tests.integration.worker.driving import Life, PlayedHost
from tests.integration.worker.server import Server

FATAL = 'FATAL:  terminating background worker "tested" due to administrator command\n'


@pytest.fixture
def start(host: PlayedHost, database: dict[str, Any]) -> Any:
    """Start a database worker of dbfunctions."""

    def start(function: str, arg: Any = None, **keys: Any) -> Life:
        from bgworker._spec import DATABASE_WORKER_FLAGS

        return host.start(
            function, arg, library="dbfunctions", **{"bgw_flags": DATABASE_WORKER_FLAGS, "database": database, **keys}
        )

    return start


@pytest.fixture(scope="module")
def roles(server: Server) -> Iterator[None]:
    server.run(
        "CREATE ROLE plain LOGIN",
        "CREATE ROLE nologin NOLOGIN",
        "CREATE DATABASE other",
        "CREATE DATABASE closed ALLOW_CONNECTIONS false",
        "CREATE DATABASE private",
        "REVOKE CONNECT ON DATABASE private FROM PUBLIC",
    )
    yield
    server.run("DROP DATABASE other", "DROP DATABASE closed", "DROP DATABASE private", "DROP ROLE plain", "DROP ROLE nologin")


@pytest.fixture
def marks(server: Server) -> Iterator[Server]:
    server.run("DROP TABLE IF EXISTS marks", "CREATE TABLE marks (mark text)")
    yield server
    server.run("DROP TABLE marks")


@pytest.mark.parametrize(
    ("arg", "expected"),
    [
        ({}, ("postgres", "postgres")),
        ({"dbname": None, "username": None}, ("postgres", "postgres")),
        ({"dbname": "other"}, ("other", "postgres")),
        ({"dbname": "other", "username": "plain"}, ("other", "plain")),
        ({"username": "nologin", "flags": 2}, ("postgres", "nologin")),
        ({"dbname": "other", "username": "nologin", "flags": 2}, ("other", "nologin")),
    ],
)
@pytest.mark.usefixtures("roles")
def test_connects_as_asked(start: Any, arg: dict[str, Any], expected: tuple[str, str]) -> None:
    """C15, C16, C17, C19: database and role as given or as configured, NOLOGIN with the bypass; bgw_name in pg_stat_activity."""
    life = start("who_am_i", arg)
    assert life.read("out").splitlines() == [str((*expected, "tested")), "autocommit True"], life.read("err")
    assert life.wait() == 0


@pytest.mark.parametrize(
    ("arg", "error"),
    [
        ({"dbname": "nowhere"}, 'database "nowhere" does not exist'),
        ({"username": "nobody_at_all"}, 'role "nobody_at_all" does not exist'),
        ({"username": "nologin"}, 'role "nologin" is not permitted to log in'),
        ({"username": "nobody_at_all", "flags": 2}, 'role "nobody_at_all" does not exist'),
        ({"dbname": "closed"}, 'database "closed" is not currently accepting connections'),
        ({"dbname": "private", "username": "plain"}, 'permission denied for database "private"'),
        ({"dbname": "private", "username": "nologin", "flags": 2}, 'permission denied for database "private"'),
    ],
)
@pytest.mark.usefixtures("roles")
def test_servers_refusal_is_the_workers_error(start: Any, arg: dict[str, Any], error: str) -> None:
    """C18, C19: what the server refuses without a bypass ends the worker with the server's words, exit code 1."""
    life = start("who_am_i", arg)
    assert life.wait() == 1
    assert error in life.read("err")


@pytest.mark.usefixtures("roles")
def test_configured_role_is_the_default(start: Any, server: Server) -> None:
    """C17: with a role configured, a worker that names none runs as that one."""
    life = start("who_am_i", {}, database={"kind": "external", "conninfo": server.conninfo, "role": "plain"})
    assert "('postgres', 'plain', 'tested')" in life.read("out")


@pytest.mark.usefixtures("roles")
def test_connects_by_oid(start: Any, server: Server) -> None:
    """C15, C16: database and role by oid, 0 for the configured ones, a missing oid with the server's words."""
    database = server.value("SELECT oid::bigint FROM pg_database WHERE datname = 'other'")
    role = server.value("SELECT oid::bigint FROM pg_roles WHERE rolname = 'plain'")
    assert "('other', 'plain', 'tested')" in start("who_by_oid", [database, role]).read("out")
    assert "('postgres', 'postgres', 'tested')" in start("who_by_oid", [0, 0]).read("out")
    life = start("who_by_oid", [1, 0])
    assert "InvalidCatalogName: database 1 " in life.read("err") or "template1" in life.read("out")
    life = start("who_by_oid", [4_000_000_000, 0])
    assert "InvalidCatalogName: database 4000000000 does not exist" in life.read("err")
    life = start("who_by_oid", [0, 4_000_000_000])
    assert "role with OID 4000000000 does not exist" in life.read("err")
    assert life.wait() == 1


def test_connects_once(start: Any) -> None:
    """C15: after one connection each further call of either function is an error; a failed one leaves it free."""
    life = start("connect_twice")
    again = 'UsageError: background worker "tested" has connected to a database already'
    out = life.read("out").splitlines()
    assert out[0].startswith("OperationalError: ")
    assert out[1:] == [again] * 3
    assert life.wait() == 0


def test_connection_needs_the_flag(start: Any) -> None:
    """C06: a worker without the flag gets an error that names it."""
    from bgworker._spec import BGWORKER_SHMEM_ACCESS

    life = start("refused", {}, bgw_flags=BGWORKER_SHMEM_ACCESS)
    out = life.read("out")
    assert "it was registered without the flag for it" in out
    assert "BGWORKER_BACKEND_DATABASE_CONNECTION is not in its bgw_flags." in out
    assert "it was given none" in start("refused", {}, database=None).read("out")


def test_several_transactions_one_after_another(start: Any) -> None:
    """C20: transactions commit one after another; an exception and psycopg.Rollback roll back."""
    life = start("several_transactions")
    assert life.read("out") == "([0, 1, 2],)\n", life.read("err")
    assert life.wait() == 0


def test_misuse_is_named(start: Any) -> None:
    """C20: SPI without connection or transaction, nesting, and sleeping inside a transaction are clear errors."""
    life = start("misuse")
    assert life.read("out").splitlines() == [
        'UsageError: background worker "tested" has no database connection',
        'UsageError: background worker "tested" has no database connection',
        "UsageError: spi.execute() was called outside of a transaction",
        "UsageError: spi.async_notify() was called outside of a transaction",
        "UsageError: transaction() cannot be nested",
        "UsageError: wait_latch() cannot be used inside a transaction",
        "(1,)",
        "UsageError: wait_latch() cannot be used inside a transaction",
        "UsageError: transaction() cannot be nested",
        "8",
    ]
    assert life.wait() == 0


def test_notify_at_commit(start: Any, server: Server) -> None:
    """C26: delivered at commit, in order, equal ones once, nothing of a rolled back transaction."""
    with server.connect() as listener:
        listener.execute("LISTEN orders")
        life = start("notify")
        assert life.wait() == 1
        assert "InFailedSqlTransaction: the transaction was rolled back" in life.read("err")
        assert "payload string too long" in life.read("out")
        listener.execute("NOTIFY orders, 'last'")
        payloads = []
        for notification in listener.notifies(timeout=10):
            payloads.append(notification.payload)
            if notification.payload == "last":
                break
    assert payloads == ["a", "b", "last"]


@pytest.mark.parametrize("how", ["spi", "raw", "script", "cursor"])
def test_listen_is_refused_and_undone(start: Any, how: str) -> None:
    """C27: LISTEN is refused by the server's command tag, however it is sent, and nothing listens afterwards."""
    life = start("listen", how)
    life.read_until("channels []")
    assert "UsageError: a background worker cannot LISTEN on its own connection" in life.read_until("LISTEN on")
    life.signal(signal.SIGTERM)
    assert life.wait() == 1


@pytest.mark.parametrize("function", ["listen", "hidden_listen_busy"])
def test_hidden_listen_ends_the_worker(start: Any, server: Server, function: str) -> None:
    """C27: a LISTEN inside a DO block is found by its first notification, asleep or busy, and ends the worker with the hint."""
    life = start(function, "hidden")
    life.read_until("channels ['orders']" if function == "listen" else "ready")
    if function == "listen":
        life.wait_until_asleep()
    server.run("NOTIFY orders")
    assert life.wait() == 1
    log = life.read("err")
    assert 'FATAL:  terminating background worker "tested" because it listens on channel "orders"\n' in log
    assert "wake_on" in log


@pytest.mark.parametrize("how", ["plain", "transaction", "psycopg", "stream", "copy"])
def test_sigterm_cancels_the_running_query(start: Any, marks: Server, how: str) -> None:
    """C22: SIGTERM during a query cancels it on the server, rolls back, and ends the worker with the FATAL line alone."""
    life = start("query", how)
    backend = int(life.read_until("\n"))
    marks.wait_until("SELECT state = 'active' AND query LIKE '%%pg_sleep%%' FROM pg_stat_activity WHERE pid = %s", backend)
    began = time.monotonic()
    life.signal(signal.SIGTERM)
    assert life.wait() == 1
    assert time.monotonic() - began < 2
    assert life.read("err") == FATAL
    marks.wait_until("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = %s", backend)
    assert marks.value("SELECT count(*) FROM marks") == 0


def test_sigterm_does_not_touch_a_held_query(start: Any, marks: Server) -> None:
    """C22: inside hold_interrupts() the query runs to its end."""
    life = start("query", "held")
    backend = int(life.read_until("\n"))
    marks.wait_until("SELECT query LIKE '%%pg_sleep%%' FROM pg_stat_activity WHERE pid = %s", backend)
    life.signal(signal.SIGTERM)
    assert life.wait() == 1
    assert "query finished" in life.read("out")
    assert life.read("err") == FATAL


def test_connection_survives_a_swallowed_termination(start: Any, marks: Server) -> None:
    """C22: clean-up inside hold_interrupts() reaches the database after a cancelled query; the next SPI call raises again."""
    life = start("query", "swallow")
    backend = int(life.read_until("\n"))
    marks.wait_until("SELECT query LIKE '%%pg_sleep%%' FROM pg_stat_activity WHERE pid = %s", backend)
    life.signal(signal.SIGTERM)
    assert life.wait() == 1
    assert "swallowed" in life.read("out")
    assert life.read("err") == FATAL
    assert marks.value("SELECT array_agg(mark) FROM marks") == ["cleaned up"]


def test_complete_transaction_is_committed(start: Any, marks: Server) -> None:
    """C22: SIGTERM between the last statement and the end of spi.transaction() lets it commit, then ends the worker."""
    life = start("between_statements")
    life.read_until("inside")
    life.signal(signal.SIGTERM)
    assert life.wait() == 1
    assert life.read("out") == "inside\nstill inside\n"
    assert life.read("err") == FATAL
    assert marks.value("SELECT array_agg(mark) FROM marks") == ["complete"]


def test_incomplete_transaction_rolls_back(start: Any, marks: Server) -> None:
    """C22: the SPI call after a SIGTERM raises, and the transaction rolls back."""
    life = start("next_statement")
    life.read_until("inside")
    life.signal(signal.SIGTERM)
    assert life.wait() == 1
    assert life.read("out") == "inside\n"
    assert marks.value("SELECT count(*) FROM marks") == 0


def test_sigint_cancels_the_query_alone(start: Any, server: Server) -> None:
    """C22: SIGINT raises QueryCanceled in the caller, again and again, and the connection goes on."""
    life = start("interrupted")
    backend = int(life.read_until("\n"))
    for number in range(2):
        server.wait_until("SELECT state = 'active' AND query LIKE '%%pg_sleep%%' FROM pg_stat_activity WHERE pid = %s", backend)
        life.wait_until_asleep()
        life.signal(signal.SIGINT)
        life.read_until("QueryCanceled: canceling statement due to user request\n" * (number + 1))
    assert life.wait() == 0
    assert life.read("out").endswith("('goes on',)\n")


def test_late_sigint_spares_the_next_query(start: Any) -> None:
    """C22: a SIGINT that comes too late for its query does not cancel another one."""
    life = start("late_interrupt")
    assert life.read("out") == "answer\n('not cancelled',)\n", life.read("err")


def test_own_handler_that_raises_leaves_the_connection_usable(start: Any, server: Server) -> None:
    """An exception out of an author's handler during a query reaches the caller, and the next transaction works."""
    life = start("own_handler_raises")
    backend = int(life.read_until("\n"))
    server.wait_until("SELECT state = 'active' AND query LIKE '%%pg_sleep%%' FROM pg_stat_activity WHERE pid = %s", backend)
    life.signal(signal.SIGUSR2)
    assert life.wait() == 0, life.read("err")
    assert life.read("out").splitlines()[1:] == ["own handler", "('goes on',)"]


def test_host_death_ends_a_running_query(start: Any, server: Server) -> None:
    """C24: a worker that waits for its query does not outlive the host."""
    life = start("query", "plain")
    backend = int(life.read_until("\n"))
    server.wait_until("SELECT query LIKE '%%pg_sleep%%' FROM pg_stat_activity WHERE pid = %s", backend)
    began = time.monotonic()
    life.die_as_host()
    assert life.wait() == 1
    assert time.monotonic() - began < 1
    server.run(f"SELECT pg_terminate_backend({backend})")


def test_query_is_waited_for_without_period(start: Any, server: Server) -> None:
    """C23: a worker that waits for a long query is not woken before there is something to do."""
    life = start("query", "plain")
    backend = int(life.read_until("\n"))
    server.wait_until("SELECT query LIKE '%%pg_sleep%%' FROM pg_stat_activity WHERE pid = %s", backend)
    wait_until_still(life.pid)


def test_pushes_during_a_query_are_taken(start: Any) -> None:
    """C27: notifications that arrive during a long query are read then, and readable after it."""
    life = start("many_notices")
    life.read_until("ready")
    for number in range(2000):
        life.send({"type": "notify", "channel": "orders", "payload": "x" * 500 + str(number)})
    assert life.wait() == 0
    assert life.read("out").splitlines()[1:] == ["2000", "1"]


def test_connection_used_by_a_thread_is_left_alone(start: Any, server: Server) -> None:
    """C23: while another thread runs a query on the connection, a wait of the main thread neither reads from it nor spins."""
    life = start("query", "thread")
    assert life.wait() == 0, life.read("err")
    assert life.read("out").splitlines()[1:] == ["8", "thread finished"]


def test_fixture_server_speaks_the_versions_we_need(server: Server) -> None:
    """The server under test is a real one."""
    with server.connect() as connection:
        assert connection.info.server_version >= 160000
        assert isinstance(connection, psycopg.Connection)
