"""Workers that the host does not know: what workers.toml has to do with it is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bgworker.errors import PermissionDenied, WorkerNotFound

Run = Callable[..., tuple[int, str, str]]

TEXT = """
include = ["more.toml"]
[[worker]]
bgw_name = "web"
bgw_library_name = "shop"
bgw_function_name = "web"
instances = 2

[[worker]]
bgw_name = "drain"
command = ["true"]
"""
MORE = """[[worker]]
bgw_name = "nightly"
command = ["true"]
enabled = false
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: Any) -> Path:
    """A directory with a workers.toml, and a host that finds nobody."""
    (tmp_path / "workers.toml").write_text(TEXT)
    (tmp_path / "more.toml").write_text(MORE)
    monkeypatch.chdir(tmp_path)
    missing = WorkerNotFound('background worker "x" does not exist', message_hint="List the workers with: bgworker status --all")
    client.answers |= dict.fromkeys(("find", "start", "restart", "terminate", "signal", "scale"), missing)
    return tmp_path


@pytest.mark.parametrize("arguments", ["start nightly", "restart nightly", "signal nightly", "wait nightly", "scale nightly 2"])
def test_a_worker_that_is_switched_off(directory: Path, run: Run, arguments: str) -> None:
    """Whoever starts it reads where it is switched off, and what to do."""
    code, out, err = run(*arguments.split())
    assert (code, out) == (1, "")
    assert err == (
        'ERROR:  background worker "nightly" is switched off: workers.toml says enabled = false\n'
        f"DETAIL:  It stands in {directory}/more.toml:4.\n"
        "HINT:  Take enabled = false out of the file, then: bgworker reload\n"
    )


def test_why_says_where_it_is_switched_off(directory: Path, run: Run) -> None:
    """File and line, as in the error."""
    assert f"It stands in {directory}/more.toml:4.\n" in run("why", "nightly")[1]


def test_the_name_of_several_instances(directory: Path, run: Run) -> None:
    """A wait is for one worker: a name that only its instances bear leads to theirs."""
    err = run("wait", "web")[2]
    assert 'background worker "web" does not exist: it has instances\n' in err
    assert 'HINT:  Name one of them, as in "web-1".\n' in err


def test_instances_that_the_host_has_not_read(directory: Path, run: Run) -> None:
    """None of them is registered: act and why say so, instead of that they have never been."""
    assert 'ERROR:  background worker "web" is not registered\n' in run("restart", "web")[2]
    assert 'Background worker "web" stands in workers.toml, but the host has not registered it.' in run("why", "web")[1]


def test_instances_that_are_over(directory: Path, client: Any, run: Run) -> None:
    """Start finds them by the file, where nothing else says that they are instances."""
    client.facts["finished"] = [{"bgw_name": name, "slot": 1, "generation": 1, "reason": "exit 0"} for name in ("web-2", "web-1")]
    missing = WorkerNotFound("no")
    client.answers["start"] = lambda name: missing if name == "web" else "3.2"
    assert run("start", "web") == (0, "starting web-1 (3.2)\nstarting web-2 (3.2)\n", "")


def test_a_worker_that_the_host_has_not_read(directory: Path, run: Run) -> None:
    """Written in the file and not registered: the file has it, and why tells the rest."""
    err = run("start", "drain")[2]
    assert 'ERROR:  background worker "drain" is not registered\n' in err
    assert f"{directory}/workers.toml:10" in err


def test_what_the_host_knows_better(directory: Path, client: Any, run: Run) -> None:
    """A worker that is registered, or over, or in no file, keeps the host's words."""
    client.facts["finished"] = [{"bgw_name": "drain", "slot": 1, "generation": 1}]
    client.facts["slots"] = [{"bgw_name": "nightly", "slot": 2, "generation": 1}]
    for name in ("drain", "nightly", "nobody"):
        assert 'background worker "x" does not exist' in run("signal", name)[2]
    (directory / "workers.toml").write_text("[[")
    assert 'background worker "x" does not exist' in run("start", "web-1")[2]


def test_whoever_may_not_view(directory: Path, client: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member without the right to view reads what the host has answered, of each name."""

    def status() -> Any:
        raise PermissionDenied("permission denied")

    monkeypatch.setattr(client, "status", status)
    code, _, err = run("signal", "drain", "nightly")
    assert code == 1
    assert err.count('background worker "x" does not exist') == 2
