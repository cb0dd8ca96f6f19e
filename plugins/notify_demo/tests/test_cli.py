"""``bgworker notify-demo listen`` against stand-ins for the client and the database."""

from __future__ import annotations

import select
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

import bgworker
from bgworker import DatabaseStatus, HostError, HostNotRunning, HostStatus
from notify_demo import cli

DATABASE = DatabaseStatus(kind="embedded", phase="recovery_finished", url="postgresql:///x")


class Client:
    """A connection to a host with some database."""

    def __init__(self, database: DatabaseStatus | None) -> None:
        self._database = database

    def __enter__(self) -> Client:  # noqa: PYI034 - a stand-in
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def host(self) -> HostStatus:
        """Say what status says about the host."""
        return HostStatus(pid=1, database=self._database)


class Connection:
    """A psycopg connection with notifications waiting; select() finds it ready at once."""

    def __init__(self, payloads: list[str]) -> None:
        self.executed: list[str] = []
        self._payloads = payloads

    def __enter__(self) -> Connection:  # noqa: PYI034 - a stand-in
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def execute(self, query: Any) -> None:
        """Note the statement."""
        self.executed.append(query.as_string(None))

    def notifies(self, timeout: float) -> list[Any]:
        """Give one notification at a time."""
        assert timeout == 0
        return [SimpleNamespace(channel="heartbeat", pid=9, payload=self._payloads.pop(0))] if self._payloads else []


def listen(
    monkeypatch: pytest.MonkeyPatch, client: Client | HostError, connection: Connection | Exception | None, *arguments: str
) -> Result:
    """Run the command with stand-ins."""

    def connect(data_directory: str | None = None) -> Client:
        if isinstance(client, HostError):
            raise client
        return client

    def connect_database(url: str, **options: Any) -> Connection:
        assert url == "postgresql:///x"
        if isinstance(connection, Exception):
            raise connection
        assert connection is not None
        return connection

    monkeypatch.setattr(bgworker, "connect", connect)
    monkeypatch.setattr(psycopg, "connect", connect_database)
    monkeypatch.setattr(select, "select", lambda *_: None)
    return CliRunner().invoke(cli.group, ["listen", *arguments])


def test_prints_notifications(monkeypatch: pytest.MonkeyPatch) -> None:
    """What arrives is printed, one line each, with nothing in it that a terminal would obey."""
    connection = Connection(["one", "two\x1b[2J\nthree\u202e", "four"])
    result = listen(monkeypatch, Client(DATABASE), connection, 'odd"name', "--count", "2")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "heartbeat (9): one\nheartbeat (9): two?[2J?three?\n"
    assert connection.executed == ['LISTEN "odd""name"']


@pytest.mark.parametrize(
    ("client", "connection", "exit_code", "text"),
    [
        (HostNotRunning("host is not running"), None, 3, "host is not running"),
        (Client(None), None, 1, "host has no database to listen on"),
        (Client(DatabaseStatus()), None, 1, "host has no database to listen on"),
        (Client(DATABASE), psycopg.OperationalError("refused\n"), 1, "could not listen on the database: refused"),
        (Client(DATABASE), Connection([]), 4, 'notifications on channel "heartbeat" did not come in time'),
    ],
)
def test_failures_have_their_exit_codes(
    monkeypatch: pytest.MonkeyPatch, client: Any, connection: Any, exit_code: int, text: str
) -> None:
    """Whatever is in the way leaves the command as an error of bgworker, with the exit code that goes with it."""
    result = listen(monkeypatch, client, connection, "--count", "1", "--timeout", "0")
    assert isinstance(result.exception, HostError)
    assert (str(result.exception), result.exception.exit_code, result.stdout) == (text, exit_code, "")
