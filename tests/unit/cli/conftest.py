"""A command line without a host: a client that remembers what it was told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import pytest

from bgworker._handle import BgwHandleStatus, WorkerPid
from bgworker.cli import _invocation, main
from bgworker.errors import HostNotRunning


class FakeHandle:
    """A handle by its text."""

    def __init__(self, text: str, last_exit: Any = None) -> None:
        self.text = text
        self.ended = last_exit
        self.pid: int | None = None

    def __str__(self) -> str:
        return self.text

    def last_exit(self) -> Any:
        """How the last life ended."""
        return self.ended

    def get_pid(self) -> WorkerPid:
        """Whether it runs."""
        return WorkerPid(BgwHandleStatus.STOPPED, None) if self.pid is None else WorkerPid(BgwHandleStatus.STARTED, self.pid)


class FakeClient:
    """A client whose answers are the test's; every call is kept."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.host_pid = 4711
        self.facts: dict[str, Any] = {"host": {}, "slots": [], "finished": [], "broken_plugins": [], "rejected": []}
        self.answers: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def status(self) -> dict[str, Any]:
        """Return the facts."""
        return self.facts

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.calls.append((method, *arguments, *options.values()))
            answer = self.answers.get(method, FakeHandle("3.2"))
            if callable(answer):
                answer = answer(*arguments)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return call


@pytest.fixture
def make_handle() -> type[FakeHandle]:
    """Return the class of the handles."""
    return FakeHandle


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """The one client that every verb of this test gets."""
    fake = FakeClient()
    monkeypatch.setattr(_invocation.Invocation, "connect", lambda self: fake)
    return fake


@pytest.fixture
def no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """No host answers."""

    def refuse(_self: Any) -> Any:
        raise HostNotRunning('no host is running in "/data"', "Nobody listens there.", "Start it with: bgworker run")

    monkeypatch.setattr(_invocation.Invocation, "connect", refuse)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process; returns exit code, standard output and standard error."""
    for name in ("BGWORKER_DATA", "BGWORKER_CONFIG", "STATE_DIRECTORY"):
        # Set before it is removed, so that what a verb exports does not outlive the test.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    def run_main(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_main
