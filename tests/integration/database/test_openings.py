"""Databases that allow no connections, opened for one worker's connection and closed again, whoever is killed in between."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.integration.database.driving import FakeHost, Server, wait_until

from bgworker._database.conninfo import parse
from bgworker._database.journal import JOURNAL_NAME, Journal
from bgworker._database.openings import Answer, Openings
from bgworker._database.waits import Waits

#: ALLOW_CONNECTIONS and CONNECTION LIMIT as the tests' database has them, and while it is open.
SHUT, OPEN = (False, 7), (True, 0)
NAME = 'shut "er"'


@pytest.fixture
def shut(shared_server: Server) -> Iterator[Server]:
    """A server with a database that allows no connections, and a role that is no superuser."""
    with shared_server.connect() as connection:
        connection.execute(f'CREATE DATABASE "{NAME.replace(chr(34), chr(34) * 2)}" ALLOW_CONNECTIONS false CONNECTION LIMIT 7')
        connection.execute("CREATE ROLE weak LOGIN PASSWORD 'sesame'")
    yield shared_server
    with shared_server.connect() as connection:
        for (name,) in connection.execute("SELECT quote_ident(datname) FROM pg_database WHERE datname ~ 'shut'").fetchall():
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        connection.execute("DROP ROLE weak")


def values(server: Server, name: str = NAME) -> Any:
    """Return what the server says about a database now."""
    with server.connect() as connection:
        return connection.execute("SELECT datallowconn, datconnlimit FROM pg_database WHERE datname = %s", [name]).fetchone()


def begin(host: FakeHost, server: Server) -> None:
    """Start a database process for this server."""
    mark = host.mark()
    host.external(server.url)
    host.phase("recovery_finished", mark)


def ask(host: FakeHost, number: int, database: str = NAME) -> None:
    """Ask for a database, without waiting."""
    host.send(type="open_database", id=number, database=database, worker=f"worker {number}")


def answer(host: FakeHost, number: int) -> Any:
    """Wait for the answer; return error and SQLSTATE."""
    message = host.received("database_opened", id=number)
    return message["error"], message["sqlstate"]


def opened(host: FakeHost, number: int = 1, database: str = NAME) -> None:
    """Have a database opened."""
    ask(host, number, database)
    assert answer(host, number) == ("", "")


def wait_for(server: Server, expected: Any, name: str = NAME) -> None:
    """Wait until a database has these values."""
    wait_until(lambda: values(server, name) == expected, f"{expected} of {name}")


def is_forgotten(host: FakeHost) -> None:
    """Wait until nothing is left to be undone."""
    wait_until(lambda: not (host.data_directory / JOURNAL_NAME).exists(), "the end of the journal")


def test_opened_to_superusers_and_closed_again(host: FakeHost, shut: Server) -> None:
    """C18: old values are written down, superusers and nobody else get in, and then everything is exactly as it was."""
    unfinished = host.data_directory / f"{JOURNAL_NAME}.0123456789abcdef"
    unfinished.touch()
    begin(host, shut)
    opened(host)
    assert values(shut) == OPEN
    journal = host.data_directory / JOURNAL_NAME
    assert not unfinished.exists()
    assert journal.stat().st_mode & 0o777 == 0o600
    (entry,) = json.loads(journal.read_text())
    assert (entry["name"], entry["allow_connections"], entry["connection_limit"]) == (NAME, *SHUT)
    with pytest.raises(psycopg.OperationalError, match="too many connections for database"):
        psycopg.connect(shut.url.replace("//postgres", "//weak"), dbname=NAME)
    with shut.connect(dbname=NAME) as connection:
        host.send(type="close_database", id=1)
        wait_for(shut, SHUT)
        assert connection.execute("SELECT 1").fetchone() == (1,)
    is_forgotten(host)
    assert [path.name for path in host.data_directory.iterdir()] == []


def test_one_at_a_time(host: FakeHost, shut: Server) -> None:
    """C18: a second request waits for the first one's end; one that was withdrawn in the queue is never served."""
    begin(host, shut)
    opened(host, 1)
    ask(host, 2)
    ask(host, 3)
    host.send(type="close_database", id=2)
    host.send(type="all of it has been read")
    host.received("log", level="WARNING")
    assert values(shut) == OPEN
    assert [message["id"] for message in host.messages("database_opened")] == [1]
    host.send(type="close_database", id=1)
    assert answer(host, 3) == ("", "")
    host.send(type="close_database", id=3)
    wait_for(shut, SHUT)
    assert [message["id"] for message in host.messages("database_opened")] == [1, 3]


def test_what_is_refused_and_what_needs_nothing(host: FakeHost, shut: Server) -> None:
    """C18: a database that is open stays as it is; one that does not exist, and a role without the right, are errors."""
    begin(host, shut)
    opened(host, 1, "postgres")
    assert values(shut, "postgres") == (True, -1)
    ask(host, 2, "nowhere")
    assert answer(host, 2) == ('database "nowhere" does not exist', "3D000")
    host.stop()
    mark = host.mark()
    host.external(shut.url.replace("//postgres", "//weak"))
    host.phase("recovery_finished", mark)
    ask(host, 3)
    error, sqlstate = answer(host, 3)
    assert error == f'cannot open database "{NAME}", which allows no connections: role "weak" is no superuser'
    assert sqlstate == "42501"
    assert "SUPERUSER" in host.messages("database_opened")[-1]["detail"]
    assert values(shut) == SHUT


def test_killed_database_process(host: FakeHost, shut: Server) -> None:
    """C18: SIGKILL between opened and restored leaves it to the next database process, which serves requests again."""
    begin(host, shut)
    opened(host)
    os.kill(host.database_pid, signal.SIGKILL)
    assert values(shut) == OPEN
    begin(host, shut)
    wait_for(shut, SHUT)
    opened(host, 2)
    host.send(type="close_database", id=2)
    wait_for(shut, SHUT)


def test_killed_host(make_host: Callable[..., FakeHost], shut: Server) -> None:
    """C18: when the host itself was killed in between, the next host on the data directory restores at its start."""
    first = make_host()
    begin(first, shut)
    opened(first)
    first.kill()
    assert values(shut) == OPEN
    second = make_host(first.data_directory)
    begin(second, shut)
    wait_for(shut, SHUT)
    is_forgotten(second)


def test_embedded_server(running: FakeHost) -> None:
    """C18: the same on the embedded server, over a kill of the database process and of the server."""
    with running.connect() as connection:
        connection.execute("CREATE DATABASE shut ALLOW_CONNECTIONS false CONNECTION LIMIT 7")
    opened(running, 1, "shut")
    os.kill(running.database_pid, signal.SIGKILL)
    os.kill(running.postgres_pid, signal.SIGKILL)
    mark = running.mark()
    running.embedded()
    running.phase("recovery_finished", mark)

    def is_shut() -> bool:
        with running.connect() as connection:
            query = "SELECT datallowconn, datconnlimit FROM pg_database WHERE datname = 'shut'"
            return connection.execute(query).fetchone() == SHUT

    wait_until(is_shut, "the old values")


def test_shutdown_restores(host: FakeHost, shut: Server) -> None:
    """C18: a fast stop closes what is open before the process ends, and answers what still waits."""
    begin(host, shut)
    opened(host)
    ask(host, 2)
    host.stop()
    assert values(shut) == SHUT
    assert answer(host, 2) == ("the host is shutting down", "")


def test_lost_connection_restores(host: FakeHost, shut: Server) -> None:
    """C18: when its own session is lost while a database is open, the next one closes it."""
    begin(host, shut)
    opened(host)
    with shut.connect() as connection:
        mine = "state = 'idle' AND application_name = 'bgworker database' AND query LIKE 'ALTER%'"
        connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {mine}")
    wait_for(shut, SHUT)
    opened(host, 2)
    host.send(type="close_database", id=2)
    wait_for(shut, SHUT)


@pytest.mark.parametrize(
    ("statement", "name", "expected"),
    [
        ("RENAME TO shut2", "shut2", SHUT),
        ("WITH CONNECTION LIMIT 5", NAME, (True, 5)),
        ("WITH ALLOW_CONNECTIONS false", NAME, SHUT),
        (None, NAME, None),
    ],
)
def test_changed_meanwhile(host: FakeHost, shut: Server, statement: str | None, name: str, expected: Any) -> None:
    """C18: one that was renamed is found; one whose limit somebody changed on purpose, or that was dropped, is left alone."""
    begin(host, shut)
    opened(host)
    quoted = f'"{NAME.replace(chr(34), chr(34) * 2)}"'
    with shut.connect() as connection:
        connection.execute(f"ALTER DATABASE {quoted} {statement}" if statement else f"DROP DATABASE {quoted}")
    host.send(type="close_database", id=1)
    is_forgotten(host)
    assert values(shut, name) == expected


def test_old_values_of_another_server_are_kept(host: FakeHost, shut: Server) -> None:
    """C18: the journal may be about a server that the url no longer names: it is kept, and nothing is done here."""
    with shut.connect() as connection:
        row = connection.execute("SELECT oid::bigint FROM pg_database WHERE datname = %s", [NAME]).fetchone()
        connection.execute(f'ALTER DATABASE "{NAME.replace(chr(34), chr(34) * 2)}" WITH ALLOW_CONNECTIONS true CONNECTION LIMIT 0')
    assert row
    entry = {"system": "1", "oid": row[0], "name": "theirs", "allow_connections": False, "connection_limit": -1}
    (host.data_directory / JOURNAL_NAME).write_text(json.dumps([entry]))
    begin(host, shut)
    host.received("log", message='database "theirs" of another server is still open to superusers')
    opened(host)  # it is open already
    assert values(shut) == OPEN
    host.stop()
    assert json.loads((host.data_directory / JOURNAL_NAME).read_text()) == [entry]


@pytest.mark.parametrize("how", ["link", "text"])
def test_journal_that_is_not_ours(host: FakeHost, shut: Server, how: str) -> None:
    """C18: without a usable journal nothing is opened, and the error names the file."""
    journal = host.data_directory / JOURNAL_NAME
    journal.symlink_to("/etc/passwd") if how == "link" else journal.write_text("[1]")
    begin(host, shut)
    ask(host, 1)
    assert JOURNAL_NAME in answer(host, 1)[0]
    assert values(shut) == SHUT
    assert journal.is_symlink() == (how == "link")
    journal.unlink()
    opened(host, 2)


class Owner:
    """Hears of the requests of an Openings in this process."""

    def __init__(self) -> None:
        self.answers: dict[int, Answer] = {}
        self.lines: list[str] = []

    def opening_answered(self, request: int, answer: Answer) -> None:
        """Keep the answer."""
        self.answers[request] = answer

    def log(self, level: str, message: str, detail: str = "", hint: str = "") -> None:
        """Keep the line."""
        self.lines.append(message)


def test_deadline(shut: Server, tmp_path: Path) -> None:
    """C18: a worker that says nothing does not keep a database open; one that queues for too long is told to try again."""
    waits, owner = Waits(), Owner()
    openings = Openings(waits, owner, Journal(str(tmp_path)), deadline=0.2)
    openings.open(1, NAME, "early")
    wait_until(lambda: waits.turn() or 1 in owner.answers, "the end of the wait for a server that does not answer")
    assert owner.answers[1].error == f'could not open database "{NAME}" in time'
    openings.begin(parse(shut.url))
    openings.open(2, NAME, "silent")
    wait_until(lambda: waits.turn() or 2 in owner.answers, "the opening")
    assert owner.answers[2] == Answer()
    assert values(shut) == OPEN
    wait_until(lambda: waits.turn() or values(shut) == SHUT, "the old values")
    assert any('worker "silent" did not connect' in line for line in owner.lines)
    waits.close()
