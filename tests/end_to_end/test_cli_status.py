"""status against a real host: its JSON to the letter, its price, and what a pipe gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from bgworker.testing import RunningHost

MakeHost = Callable[..., RunningHost]

TASKS = """
from bgworker import worker

def idle(arg):
    worker.unblock_signals()
    for _ in worker.latch_loop(wait_event="IdleMain"):
        worker.report_activity("busy", "no\\x1b[31m \\x1b]0;title\\x07way")

def fail(arg):
    raise ConnectionError("connection refused")
"""

CONFIG = """
[host]
max_worker_processes = 4
[[worker]]
bgw_name = "keeper"
bgw_library_name = "tasks"
bgw_function_name = "idle"
wake_on = []
[[worker]]
bgw_name = "[bold]failer"
bgw_restart_time = 3600
bgw_library_name = "tasks"
bgw_function_name = "fail"
"""

SLOT_KEYS = """slot generation bgw_name bgw_type bgw_library_name bgw_function_name bgw_flags bgw_start_time bgw_restart_time
state pid origin restarts started_at restart_at last_exit activity reason config"""


@pytest.fixture
def shop(make_host: MakeHost) -> RunningHost:
    """A host with one worker that is well and one that is not."""
    host = make_host(CONFIG, tasks=TASKS)
    host.start_and_wait()
    host.wait_for_worker("keeper")
    host.wait_for_worker("[bold]failer", "waiting_restart")
    return host


def test_json_to_the_letter(shop: RunningHost) -> None:
    """C28: the keys and values of the documented object, with the worker's activity filled in."""
    # The first report can be behind the start by a moment.
    shop.wait_until(lambda: (shop.slot("keeper") or {}).get("activity", {}).get("wait_event") == "IdleMain", "keeper reports")
    result = shop.run_cli("status", "--json")
    assert result.returncode == 0, result.stderr
    status = json.loads(result.stdout)
    assert status["format"] == 1
    assert {"host", "slots", "finished", "broken_plugins", "rejected"} < status.keys()
    host = status["host"]
    assert (host["state"], host["max_worker_processes"], host["database"]) == ("run", 4, None)
    assert host["data_directory"] == str(shop.data_directory)
    keeper, failer = status["slots"]
    assert keeper.keys() == set(SLOT_KEYS.split())
    assert (keeper["state"], keeper["origin"], keeper["reason"]) == ("started", "static", "")
    assert keeper["activity"] == {"state": "busy", "text": "no?[31m ?]0;title?way", "wait_event": "IdleMain"}
    assert keeper["bgw_flags"] == ["BGWORKER_SHMEM_ACCESS"]
    assert (failer["state"], failer["pid"], failer["last_exit"]["code"]) == ("waiting_restart", None, 1)
    assert failer["restart_at"] is not None
    assert failer["reason"].startswith("exit 1: ")


def test_json_costs_no_click_rich_or_msgspec(shop: RunningHost) -> None:
    """The path of `status --json` imports nothing that it does not need; that is what keeps it under its 45 ms."""
    code = (
        "import sys; from bgworker.cli import main; code = main(['status', '--json']); print(code, *sys.modules, file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "BGWORKER_CONFIG": str(shop.config_path)},
    )
    returncode, *modules = result.stderr.split()
    assert returncode == "0"
    dear = {"click", "rich", "msgspec", "pluggy", "psutil", "psycopg", "asyncio", "dataclasses", "inspect", "importlib_metadata"}
    assert not dear & set(modules)


def test_a_pipe_gets_no_escape_sequence(shop: RunningHost) -> None:
    """T61: what a worker wrote reaches the reader inert, names that look like markup as they are, one row each."""
    shop.wait_until(lambda: (shop.slot("keeper") or {}).get("activity", {}).get("wait_event") == "IdleMain", "keeper reports")
    result = shop.run_cli("status")
    assert result.returncode == 0
    assert "\x1b" not in result.stdout
    assert "\x07" not in result.stdout
    rows = result.stdout.splitlines()
    assert any("[bold]failer" in row and "restart in" in row for row in rows)
    assert any("keeper" in row and "started" in row and "no?[31m ?]0;title?way" in row for row in rows)


def test_check(shop: RunningHost) -> None:
    """--check names what needs a human and is 1; with that fixed it is 0."""
    result = shop.run_cli("status", "--check")
    assert result.returncode == 1
    assert result.stdout.startswith('Background worker "[bold]failer" is down: exit 1: ConnectionError: connection refused')
    assert result.stdout.count("\n") == 1
    assert shop.run_cli("terminate", "[bold]failer", "--wait").returncode == 0
    result = shop.run_cli("status", "--check")
    assert (result.returncode, result.stdout) == (0, "all is well\n")


def test_a_closed_pipe_is_quiet(shop: RunningHost) -> None:
    """A reader that goes away early is no error worth a traceback."""
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    with os.fdopen(write_fd, "wb") as output:
        result = subprocess.run(
            [sys.executable, "-P", "-m", "bgworker", "status"],
            stdout=output,
            stderr=subprocess.PIPE,
            env={**os.environ, "BGWORKER_CONFIG": str(shop.config_path)},
            check=False,
        )
    assert result.returncode == 141
    assert result.stderr == b""
