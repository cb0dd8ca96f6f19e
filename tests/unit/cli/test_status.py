"""status without a host, and with one that says what the test wants."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bgworker import _logs
from bgworker.cli import _offline

Run = Callable[..., tuple[int, str, str]]

FAILED = {
    "slot": 3,
    "generation": 2,
    "bgw_name": "drain",
    "bgw_type": "drain",
    "state": "waiting_restart",
    "last_exit": {"code": 1, "signal": None, "at": "2026-01-01T00:00:00Z", "reason": "exit 1: refused"},
}


def test_a_pipe_gets_the_plain_table(client: Any, run: Run) -> None:
    """Standard output that is no terminal gets full rows and no escape sequence."""
    client.facts["slots"] = [FAILED]
    code, out, err = run("status")
    assert (code, err) == (0, "")
    assert "3.2   drain  restarting" in out
    assert "\x1b" not in out


def test_json_is_the_hosts_own(client: Any, run: Run) -> None:
    """--json prints what the host said, nothing added or left out, in ASCII."""
    client.facts["slots"] = [{**FAILED, "bgw_name": "名前\u202e"}]
    code, out, _ = run("status", "--json")
    assert code == 0
    assert json.loads(out) == client.facts
    assert out.isascii()


def test_names_and_failed(client: Any, run: Run) -> None:
    """NAME and --failed choose rows, with and without --json; a name of nobody is exit code 1 after the rest was shown."""
    client.facts["slots"] = [FAILED, {"slot": 4, "generation": 1, "bgw_name": "well", "state": "started"}]
    assert [s["bgw_name"] for s in json.loads(run("status", "--json", "--failed")[1])["slots"]] == ["drain"]
    code, out, err = run("status", "well", "drian")
    assert code == 1
    assert "well" in out
    assert "drain" not in out
    assert 'ERROR:  there is no background worker "drian"\nHINT:  The nearest is "drain".' in err
    assert run("status", "--json", "4.1", "9")[0] == 1


def test_check(client: Any, run: Run) -> None:
    """--check is 0 when all is well, and 1 with the reasons when something needs a human."""
    assert run("status", "--check") == (0, "all is well\n", "")
    client.facts["slots"] = [FAILED]
    code, out, _ = run("status", "--check")
    assert code == 1
    assert out == 'Background worker "drain" is down: exit 1: refused; it is started again now.\n'
    code, out, _ = run("status", "--check", "--json")
    assert code == 1
    assert json.loads(out)["troubles"] == ['Background worker "drain" is down: exit 1: refused; it is started again now.']


@pytest.fixture
def left_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a host that is down left in its directory."""
    lives = [
        {"event": "exited", "bgw_name": "a", "slot": 1, "generation": 1, "code": 3, "signal": None, "at": "x", "reason": "exit 3"},
        {"event": "records_lost", "count": 3},
        {"event": "exited", "bgw_name": "b", "slot": 2, "generation": 1, "code": 1, "reason": "exit 1", "was_requested": True},
        {"event": "exited", "bgw_name": "a", "slot": 1, "generation": 4, "code": 0, "signal": None, "at": "x", "reason": "exit 0"},
    ]
    monkeypatch.setattr(_logs, "read_history", lambda _directory: iter(lives))
    line = "2026-01-01 00:00:00.000 UTC [17] LOG:  host is shut down"
    monkeypatch.setattr(_logs, "last_host_log", lambda _directory: (datetime(2026, 1, 1, tzinfo=UTC), line))


def test_with_the_host_down(no_host: None, left_files: None, run: Run) -> None:
    """Exit code 3, with what the files tell: since when, the host's last words, the last life of each worker."""
    code, out, err = run("status")
    assert code == 3
    assert out.startswith("bgworker  down since 2026-01-01T00:00:00.000Z (")
    assert "last line of host.log: LOG:  host is shut down" in out
    assert "1.4   a     -      exit 0" in out
    assert "2.1   b     -      stopped on request" in out
    assert 'no host is running in "/data"' in err


def test_json_with_the_host_down(no_host: None, left_files: None, run: Run) -> None:
    """The same as JSON, in the form of a status whose host is down."""
    code, out, err = run("status", "--json")
    assert code == 3
    status = json.loads(out)
    assert (status["host"]["state"], status["host"]["since"]) == ("down", "2026-01-01T00:00:00.000Z")
    assert [(f["bgw_name"], f["generation"]) for f in status["finished"]] == [("b", 1), ("a", 4)]
    assert err.startswith("ERROR:")


def test_with_the_host_down_and_no_files(no_host: None, monkeypatch: pytest.MonkeyPatch, run: Run, tmp_path: Path) -> None:
    """A directory that no host has ever used says so and no more."""
    monkeypatch.setattr(_logs, "read_history", lambda _directory: iter(()))
    monkeypatch.setattr(_logs, "last_host_log", lambda _directory: None)
    code, out, _ = run("status", "-D", str(tmp_path))
    assert code == 3
    assert out.startswith("bgworker  down  /")
    assert out.count("\n") == 1


def test_offline_status_has_the_keys_of_a_status(client: Any, left_files: None) -> None:
    """Programs read one shape, host up or down."""
    status = _offline.offline_status("/data")
    assert {"format", "host", "slots", "finished", "broken_plugins", "rejected"} == status.keys()
