"""Completion of verbs, options and names, as the shells ask for it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, run: Run) -> Callable[..., list[str]]:
    """Ask as the shell's function does; the answers without their kinds."""

    def ask_for(line: str, shell: str = "bash") -> list[str]:
        monkeypatch.setenv("_BGWORKER_COMPLETE", f"{shell}_complete")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1) if shell != "fish" else line.rpartition(" ")[2])
        code, out, err = run()
        assert (code, err) == (0, "")
        return [answer.partition(",")[2] for answer in out.splitlines() if answer] if shell != "zsh" else out.splitlines()

    return ask_for


@pytest.fixture
def workers(client: Any) -> None:
    """Some workers."""
    client.facts["slots"] = [{"bgw_name": name, "state": "started"} for name in ("drain", "order drain", "a\nb")]
    client.facts["finished"] = [{"bgw_name": "draft"}]


def test_verbs_and_options(ask: Any, client: Any) -> None:
    """Verbs and options are completed; a verb that does not exist has nothing below it."""
    assert ask("bgworker st") == ["stop", "status", "start"]
    assert "--since" in ask("bgworker logs --s")
    assert ask("bgworker nonsense x") == []
    assert ask("bgworker completion z") == ["zsh"]


@pytest.mark.parametrize("verb", ["why", "status", "start", "restart", "terminate", "signal", "wait", "logs"])
def test_names_of_workers(ask: Any, workers: None, verb: str) -> None:
    """Every verb that takes a worker completes the names of the running host, those that are over included."""
    assert ask(f"bgworker {verb} dra") == ["draft", "drain"]
    assert ask(f"bgworker -D /x {verb} o") == ["'order drain'"]
    assert "order drain" in ask(f"bgworker {verb} o", "zsh")
    assert not any("\n" in name or name == "b" for name in ask(f"bgworker {verb} "))


def test_names_that_instances_share(ask: Any, client: Any) -> None:
    """Verbs that take such a name offer it."""
    client.facts["slots"] = [
        {"bgw_name": f"loop-{number}", "state": "started", "config": {"instance": number}} for number in (1, 2)
    ]
    for verb in ("start", "restart", "terminate", "signal", "status"):
        assert ask(f"bgworker {verb} lo") == ["loop", "loop-1", "loop-2"]
    assert ask("bgworker wait lo") == ["loop-1", "loop-2"]


def test_logs_has_the_host(ask: Any, workers: None) -> None:
    """The host's own log is a name for logs alone."""
    assert ask("bgworker logs h") == ["host"]
    assert ask("bgworker why h") == []


def test_without_a_host_there_are_no_names(ask: Any, no_host: None) -> None:
    """Nobody answers: no names, and no word about it in the middle of a command line."""
    assert ask("bgworker why ") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_sound(run: Run, shell: str) -> None:
    """Each shell gets a function that asks bgworker; where the shell is installed, it accepts it."""
    code, out, _ = run("completion", shell)
    assert code == 0
    assert f"_BGWORKER_COMPLETE={shell}_complete" in out
    if (program := shutil.which(shell)) is not None:
        subprocess.run([program, "-n"], input=out, text=True, check=True, timeout=20)


def test_unknown_shell(run: Run) -> None:
    """Another shell is a usage error."""
    code, _, err = run("completion", "tcsh")
    assert code == 2
    assert "tcsh" in err
