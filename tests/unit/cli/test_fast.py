"""The arguments that never reach click."""

from __future__ import annotations

from typing import Any

import pytest

from bgworker.cli import _fast, foreground, status_json
from bgworker.cli._invocation import Invocation

#: What the fast path takes, and what it must make of it.
STATUS = [
    (["status", "--json"], (None, None), (), False, False),
    (["status", "--json", "a", "3.2"], (None, None), ("a", "3.2"), False, False),
    (["-D", "d", "status", "a", "--json", "-c", "c"], ("d", "c"), ("a",), False, False),
    (["--data-directory=d", "status", "--json", "--failed", "--config=c"], ("d", "c"), (), True, False),
    (["-D", "d", "status", "-D", "e", "--json", "--check", "--all"], ("e", None), (), False, True),
]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What print_status was called with."""
    calls: list[Any] = []

    def print_status(invocation: Invocation, names: tuple[str, ...], *, only_trouble: bool, is_check: bool) -> int:
        calls.append(((invocation.data_directory, invocation.config), names, only_trouble, is_check))
        return 0

    monkeypatch.setattr(status_json, "print_status", print_status)
    monkeypatch.setattr("bgworker.cli.status.print_status", print_status)
    return calls


@pytest.mark.parametrize(("argv", "location", "names", "failed", "check"), STATUS)
def test_status_json_means_what_click_takes_it_for(
    seen: list[Any], argv: list[str], location: Any, names: Any, failed: bool, check: bool
) -> None:
    """Both parsers give print_status the same arguments, so that nobody can tell which of them ran."""
    quick = _fast.parse(argv)
    assert quick is not None
    assert quick() == 0
    from bgworker.cli import _group

    assert _group.run(argv) == 0
    assert seen == [(location, names, failed, check)] * 2


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["run"], (None, None, None, None)),
        (["run", "-D", "d", "--config", "c"], ("d", "c", None, None)),
        (["-c", "c", "run", "--log", "both", "--tied", "17"], (None, "c", "both", 17)),
        (["run", "--log=stderr"], (None, None, "stderr", None)),
    ],
)
def test_run_means_what_click_takes_it_for(monkeypatch: pytest.MonkeyPatch, argv: list[str], expected: Any) -> None:
    """The host's own process needs no click, and starts with the same arguments without it."""
    calls: list[Any] = []

    def run_foreground(invocation: Invocation, log_to: str | None = None, tied_to: int | None = None) -> int:
        calls.append((invocation.data_directory, invocation.config, log_to, tied_to))
        return 0

    monkeypatch.setattr(foreground, "run_foreground", run_foreground)
    monkeypatch.setattr("bgworker.cli.run.run_foreground", run_foreground)
    quick = _fast.parse(argv)
    assert quick is not None
    quick()
    from bgworker.cli import _group

    _group.run(argv)
    assert calls == [expected] * 2


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["status"],
        ["--json", "status"],
        ["status", "--json", "--watch"],
        ["status", "--json", "--jsno"],
        ["status", "--json", "-h"],
        ["status", "--json", "-D"],
        ["status", "--json", "-D", "--all"],
        ["status", "--json", "--data-directory="],
        ["status", "--json", "--log", "both"],
        ["status", "--json", "--"],
        ["run", "--tui"],
        ["run", "x"],
        ["run", "--log", "elsewhere"],
        ["run", "--tied", "x"],
        ["--log", "both", "run"],
        ["--help"],
        ["logs", "--json"],
    ],
)
def test_everything_else_is_left_to_click(argv: list[str]) -> None:
    """What the fast path does not know, mistakes included, it does not touch."""
    assert _fast.parse(argv) is None
