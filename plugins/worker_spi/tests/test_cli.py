"""``bgworker worker-spi launch`` against a stand-in for the client: what it registers, prints and ends with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Self

import pytest
from click.testing import CliRunner, Result

import bgworker
from bgworker import BgwHandleStatus, HostError, HostNotRunning, NoFreeSlot, RegistrationError, WaitTimeout
from worker_spi.cli import group


class Client:
    """A connection and, for simplicity, the handle it gives."""

    def __init__(self, outcome: tuple[BgwHandleStatus, int | None] | HostError, reason: str | None = None) -> None:
        self.registered: list[Any] = []
        self.timeout: float | None = None
        self._outcome = outcome
        self._reason = reason

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def register_dynamic_background_worker(self, worker: Any) -> Client:
        """Keep the registration."""
        self.registered.append(worker)
        if isinstance(self._outcome, RegistrationError):
            raise self._outcome
        return self

    def wait_for_startup(self, timeout: float | None = None) -> tuple[BgwHandleStatus, int | None]:
        """Say how the start went."""
        self.timeout = timeout
        if isinstance(self._outcome, HostError):
            raise self._outcome
        return self._outcome

    def last_exit(self) -> Any:
        """Say why, if that is known."""
        return SimpleNamespace(reason=self._reason) if self._reason else None


def launch(monkeypatch: pytest.MonkeyPatch, client: Client | HostError, *arguments: str) -> Result:
    """Run the command with a stand-in for the connection."""

    def connect(data_directory: str | None = None) -> Client:
        if isinstance(client, HostError):
            raise client
        return client

    monkeypatch.setattr(bgworker, "connect", connect)
    return CliRunner().invoke(group, ["launch", *arguments])


def test_prints_the_pid(monkeypatch: pytest.MonkeyPatch) -> None:
    """C42: the pid of the worker that started is all there is on standard output."""
    client = Client((BgwHandleStatus.STARTED, 4711))
    result = launch(
        monkeypatch,
        client,
        "4",
        "--database",
        "mydb",
        "--role",
        "r",
        "--flags",
        "ALLOWCONN",
        "--flags",
        "ALLOWCONN",
        "--timeout",
        "5",
    )
    assert (result.exit_code, result.stdout) == (0, "4711\n")
    assert client.timeout == 5
    assert client.registered[0].bgw_main_arg == {"index": 4, "database": "mydb", "role": "r", "flags": ["ALLOWCONN"]}


@pytest.mark.parametrize(
    ("outcome", "exit_code", "text"),
    [
        ((BgwHandleStatus.STOPPED, None), 1, 'could not start background worker "worker_spi dynamic worker 4"'),
        ((BgwHandleStatus.NOT_YET_STARTED, None), 1, 'background worker "worker_spi dynamic worker 4" has not been started yet'),
        (
            (BgwHandleStatus.POSTMASTER_DIED, None),
            3,
            'cannot start background worker "worker_spi dynamic worker 4" without the host',
        ),
        (NoFreeSlot("no free slot"), 5, "no free slot"),
        (RegistrationError("refused"), 2, "refused"),
        (WaitTimeout("too late"), 4, "too late"),
    ],
)
def test_every_other_end_has_its_exit_code(monkeypatch: pytest.MonkeyPatch, outcome: Any, exit_code: int, text: str) -> None:
    """All four statuses and all refusals leave the command as an error with the right exit code, and nothing is printed."""
    result = launch(monkeypatch, Client(outcome), "4")
    assert isinstance(result.exception, HostError)
    assert (str(result.exception), result.exception.exit_code, result.stdout) == (text, exit_code, "")


@pytest.mark.parametrize(("reason", "detail"), [(None, ""), ("exit 1: no such role.", "The reason: exit 1: no such role.")])
def test_failed_start_says_why(monkeypatch: pytest.MonkeyPatch, reason: str | None, detail: str) -> None:
    """C36: what the host knows about a failed start is shown."""
    result = launch(monkeypatch, Client((BgwHandleStatus.STOPPED, None), reason), "4")
    assert isinstance(result.exception, HostError)
    assert result.exception.message_detail == detail


def test_without_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is not running is an error with exit code 3."""
    result = launch(monkeypatch, HostNotRunning("host is not running"), "4")
    assert isinstance(result.exception, HostNotRunning)


@pytest.mark.parametrize("arguments", [[], ["-1"], ["x"], ["4", "--flags", "NOPE"], ["4", "--timeout", "-1"]])
def test_usage_errors(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    """What cannot be meant never reaches the host."""
    assert launch(monkeypatch, HostNotRunning("not asked"), *arguments).exit_code == 2
