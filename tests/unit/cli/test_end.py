"""_logs/end.py: how the last host ended, as its log tells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bgworker._logs import last_end
from bgworker.cli._offline import offline_status

START = "LOG:  starting bgworker 0.1.0 (PID 17) on data directory /srv/data"
ESSENTIAL = 'LOG:  shutting down because essential background worker "vital" failed: exit 1: boom; never restarted'
DONE = "LOG:  host is shut down"


def write(directory: Path, *lines: str) -> None:
    """Write a host's log."""
    (directory / "log").mkdir(exist_ok=True)
    stamp = "2026-01-31 08:00:00.000 UTC [17] "
    (directory / "log" / "host.log").write_text("".join(f"{stamp}{line}\n" for line in lines))


@pytest.mark.parametrize(
    ("lines", "end"),
    [
        (
            [START, "LOG:  shutting down because of SIGTERM", "LOG:  received fast shutdown request", DONE],
            "was shut down because of SIGTERM",
        ),
        (
            [START, ESSENTIAL, DONE],
            'was shut down because essential background worker "vital" failed: exit 1: boom; never restarted (exit code 7)',
        ),
        (
            [START, "LOG:  shutting down because user id 0 (PID 9) asked for it", "LOG:  shutting down because of SIGTERM", DONE],
            "was shut down because user id 0 (PID 9) asked for it",
        ),
        (
            [START, "LOG:  shutting down because of SIGTERM"],
            "began to shut down because of SIGTERM, and was killed before that was done",
        ),
        ([START, ESSENTIAL, DONE, START, "LOG:  x"], "was killed or has crashed: its log ends without a shutdown"),
        ([START, "FATAL:  workers.toml:3: wrong", DONE], "ended with an error: workers.toml:3: wrong"),
        ([START, 'LOG:  background worker "shutting down because" (PID 3) started', DONE], "was shut down"),
    ],
)
def test_how_it_ended(tmp_path: Path, lines: list[str], end: str) -> None:
    """The reason is the first that the last host gives; one that gives none, and does not say that it is done, was killed."""
    write(tmp_path, *lines)
    assert last_end(str(tmp_path)) == end


def test_a_long_log_and_none(tmp_path: Path) -> None:
    """Only its end is read; without a log nothing is known, and torn lines and those of workers tell nothing."""
    assert last_end(str(tmp_path)) == ""
    noise = ["LOG:  background worker started" for _ in range(10_000)]
    write(tmp_path, START, *noise, "LOG:  shutting down because of SIGINT", DONE)
    with (tmp_path / "log" / "host.log").open("a") as file:
        file.write("torn\n2026-01-31 08:00:00.000 UTC [3.1 17] x: FATAL:  a worker says so\n")
    assert last_end(str(tmp_path)) == "was shut down because of SIGINT"


def test_json_log(tmp_path: Path) -> None:
    """A log of JSON objects tells the same."""
    (tmp_path / "log").mkdir()
    at = {"at": "2026-01-31T08:00:00.000Z", "pid": 17, "level": "LOG"}
    said = ("starting bgworker 0.1.0 (PID 17)", "shutting down because the terminal is gone", "host is shut down")
    (tmp_path / "log" / "host.log").write_text(
        "".join(json.dumps(at | {"message": line}, separators=(",", ":")) + "\n" for line in said)
    )
    assert last_end(str(tmp_path)) == "was shut down because the terminal is gone"


@pytest.mark.parametrize("facts", ["", "[]", "torn{", '{"pid": 17}', '{"log": "files"}', '{"log": "both"}'])
def test_host_whose_log_is_a_file(tmp_path: Path, facts: str) -> None:
    """Only a host that says it writes none is believed to have none; whatever else the lock file holds changes nothing."""
    write(tmp_path, START, "LOG:  shutting down because of SIGINT", DONE)
    (tmp_path / "host.lock").write_text(facts)
    assert last_end(str(tmp_path)) == "was shut down because of SIGINT"


@pytest.mark.parametrize("has_older", [False, True])
def test_host_that_logged_to_standard_error(tmp_path: Path, has_older: bool) -> None:
    """It is said where its log went; one that an earlier host has left tells nothing of it."""
    if has_older:
        write(tmp_path, START, "LOG:  shutting down because of SIGINT", DONE)
    (tmp_path / "host.lock").write_text('{"pid": 18, "started_at": "2026-02-01T08:00:00Z", "log": "stderr"}\n')
    assert last_end(str(tmp_path)) == "logged to standard error and to no file: why it ended stands where that went"
    host = offline_status(str(tmp_path))["host"]
    assert (host["since"], host["last_words"]) == (None, "")
