"""From what ended the function to the exit code and the last lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bgworker._worker.exit import call, conclude
from bgworker._worker.interrupts import Terminated, ending_by_administrator
from bgworker._worker.runtime import Runtime

FATAL = 'FATAL:  terminating background worker "tested" due to administrator command\n'


class UnprintableError(Exception):
    """Its text cannot be made."""

    def __str__(self) -> str:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0),
        (SystemExit(), 0),
        (SystemExit(None), 0),
        *[(SystemExit(code), code) for code in range(256)],
        *[(SystemExit(code), 1) for code in (256, -1, 1 << 40)],
        (SystemExit(True), 1),
        (SystemExit(False), 0),
        (SystemExit("text"), 1),
        (SystemExit(1.5), 1),
        (SystemExit(UnprintableError()), 1),
        (ValueError("x"), 1),
        (UnprintableError(), 1),
        (KeyboardInterrupt(), 1),
        (GeneratorExit(), 1),
        (Terminated(), 1),
    ],
)
def test_exit_codes(make: Callable[..., Runtime], error: BaseException | None, code: int) -> None:
    """C29, C30, C32: every way to end has its code, and none but 0 to 255 as asked for."""
    assert conclude(make(), error) == code


@pytest.mark.parametrize("error", [None, SystemExit(0), SystemExit(3), ValueError("x"), Terminated()])
def test_told_to_end_is_code_one(
    make: Callable[..., Runtime], capsys: pytest.CaptureFixture[str], error: BaseException | None
) -> None:
    """C22: once the default handler has run the exit code is 1 and the last line FATAL, however the function ended."""
    runtime = make()
    runtime.interrupts.ending = ending_by_administrator("tested")
    assert conclude(runtime, error) == 1
    assert capsys.readouterr().err.endswith(FATAL)


def test_traceback_starts_in_the_workers_code(make: Callable[..., Runtime], capsys: pytest.CaptureFixture[str]) -> None:
    """C32: the runtime's frames are left out; those of the worker's function stay."""

    def body() -> None:
        raise ValueError("in the worker")

    assert call(make(), body) == 1
    text = capsys.readouterr().err
    assert "ValueError: in the worker" in text
    assert "in body" in text
    assert "in call" not in text


def test_excepthook_of_the_author_is_used(
    make: Callable[..., Runtime], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """C32: an error tracker's sys.excepthook sees the exception; one that fails does not hide the traceback."""
    seen: list[Any] = []
    monkeypatch.setattr("sys.excepthook", lambda *args: seen.append(args))
    error = ValueError("seen")
    assert conclude(make(), error) == 1
    assert seen[0][1] is error
    monkeypatch.setattr("sys.excepthook", lambda *args: 1 / 0)
    assert conclude(make(), error) == 1
    assert "ValueError: seen" in capsys.readouterr().err


def test_failure_behind_a_termination_is_shown(make: Callable[..., Runtime], capsys: pytest.CaptureFixture[str]) -> None:
    """C32: what failed in a block that held SIGTERM back is in the log, before the FATAL line."""
    ended = Terminated(ending_by_administrator("tested"))
    ended.__cause__ = ValueError("lost otherwise")
    assert conclude(make(), ended) == 1
    text = capsys.readouterr().err
    assert "lost otherwise" in text
    assert text.endswith(FATAL)
