"""The supervision keys under a real host: what status, log, events, history and exit codes show of them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from bgworker.testing import RunningHost

MakeHost = Callable[..., RunningHost]

HEAD = "[host]\nmax_worker_processes = 12\nshutdown_timeout = 2.0\n"
TASKS = '''
"""Workers for the tests."""
import os, sys, signal, time
from bgworker import worker

def idle(arg):
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass

def leave(arg):
    sys.exit(arg)

def killed(arg):
    os.kill(os.getpid(), signal.SIGKILL)

def on_usr2(arg):
    signal.signal(signal.SIGUSR2, lambda *_: sys.exit(9))
    worker.unblock_signals()
    worker.report_activity("ready", "")
    while True:
        time.sleep(3600)
'''


def worker(name: str, function: str, library: str = "tasks", **keys: str) -> str:
    """Return a [[worker]] table; values are TOML."""
    lines = [f'[[worker]]\nbgw_name = "{name}"\nbgw_library_name = "{library}"\nbgw_function_name = "{function}"']
    return "\n".join([*lines, *(f"{key} = {value}" for key, value in keys.items())]) + "\n"


def exits(host: RunningHost) -> dict[str, dict[str, Any]]:
    """Return the first exit of each worker as history has it."""
    path = host.data_directory / "history.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        if record["event"] == "exited":
            found.setdefault(record["bgw_name"], record)
    return found


def test_ends_are_told_apart_everywhere(make_host: MakeHost) -> None:
    """C10, C30, C31: a failed start, a failure, a crash and a success differ in status, log, history and --failed."""
    late = {"bgw_restart_time": "3600"}
    host = make_host(
        HEAD
        + worker("cannot start", "nothing", **late)
        + worker("dies early", "x", library="deadly", **late)
        + worker("fails", "leave", bgw_main_arg="1", **late)
        + worker("crashes", "killed", bgw_restart_time='"BGW_NEVER_RESTART"')
        + worker("is done", "leave", bgw_main_arg="3", success_exit_codes="[3]", **late)
        + worker("again", "leave", bgw_main_arg="3", success_exit_codes="[3]", restart_on='"always"', **late),
        tasks=TASKS,
        deadly="import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
    )
    host.start_and_wait()
    names = ("cannot start", "dies early", "fails", "again")
    reasons = {name: host.wait_for_worker(name, "waiting_restart")["reason"] for name in names}
    over = {n: host.wait_until(lambda n=n: host.finished(n), f"{n} is over") for n in ("crashes", "is done")}  # type: ignore[misc]
    assert reasons["cannot start"].startswith("failed to start: ")
    assert reasons["dies early"] == "failed to start: signal 9 (Killed); restarts after 3600 s, try 2"
    assert reasons["fails"] == "exit 1; restarts after 3600 s, try 2"
    assert reasons["again"] == "exit 3 (success); restarts after 3600 s, try 2"
    assert over["crashes"]["reason"].startswith("crash: signal 9 (Killed); not restarted")
    assert over["is done"]["last_exit"]["reason"] == "exit 3 (success)"

    host.wait_until(lambda: len(exits(host)) == 6, "history has them all")
    kinds = ("is_failed_start", "is_crash", "is_success")
    assert {name: [kind for kind in kinds if record[kind]] for name, record in exits(host).items()} == {
        "cannot start": ["is_failed_start"],
        "dies early": ["is_failed_start"],
        "fails": [],
        "crashes": ["is_crash"],
        "is done": ["is_success"],
        "again": ["is_success"],
    }
    assert host.status()["host"]["crash_count"] == 1
    failed = host.run_cli("status", "--failed").stdout
    assert [name in failed for name in ("cannot start", "dies early", "fails", "crashes", "is done", "again")] == [True] * 4 + [
        False
    ] * 2
    assert "DETAIL:  Failed to start: signal 9 (Killed); restarts after 3600 s, try 2." in host.log()
    assert "DETAIL:  Crash: signal 9 (Killed); not restarted because bgw_restart_time is BGW_NEVER_RESTART." in host.log()
    assert host.run_cli("wait", "--shutdown", "is done").returncode == 0
    assert host.run_cli("wait", "--shutdown", "crashes").returncode == 1
    assert host.run_cli("reload").returncode == 0  # a restart_backoff and success codes do not look changed to a reload
    assert host.slot("again")["restarts"] == 0  # type: ignore[index]


def test_backoff_and_signal_of_a_running_worker(make_host: MakeHost) -> None:
    """A loop that backs off says so, and start forgives it; a worker is asked to go with the signal that it named."""
    host = make_host(
        HEAD
        + worker("loop", "leave", bgw_main_arg="1", bgw_restart_time="0", restart_backoff="{ factor = 100, jitter = 0 }")
        + worker("polite", "on_usr2", stop_signal='"SIGUSR2"', bgw_restart_time="5"),
        tasks=TASKS,
    )
    host.start_and_wait()

    def backs_off() -> bool:
        return "(backoff: 2 failures in a row), try 3" in (host.slot("loop") or {})["reason"]

    host.wait_until(backs_off, "the second failure in a row waits")
    assert host.slot("loop")["reason"] == "exit 1; restarts after 100 s (backoff: 2 failures in a row), try 3"  # type: ignore[index]
    config = host.slot("loop")["config"]  # type: ignore[index]
    assert config["restart_backoff"] == {"factor": 100.0, "ceiling": 300.0, "jitter": 0.0, "healthy_after": 60.0}
    assert host.run_cli("start", "loop").returncode == 0
    host.wait_until(lambda: backs_off() is False and (host.slot("loop") or {})["restarts"] > 2, "the row begins anew")

    first = host.wait_for_worker("polite")
    host.wait_until(lambda: host.slot("polite")["activity"]["state"] == "ready", "its handler is installed")  # type: ignore[index]
    assert host.run_cli("restart", "polite").returncode == 0
    host.wait_until(lambda: (host.slot("polite") or {}).get("pid") not in (None, first["pid"]), "another process runs")
    assert host.slot("polite")["last_exit"]["code"] == 9  # type: ignore[index]
    assert host.status()["host"]["crash_count"] == 0


@pytest.mark.parametrize("how", ["fails", "cannot start", "killed"])
def test_essential_worker_ends_the_host(make_host: MakeHost, how: str) -> None:
    """An essential worker that has failed for good ends the host with exit code 7, and the log says why."""
    function, argument = {"fails": ("leave", "1"), "cannot start": ("nothing", "0"), "killed": ("idle", "0")}[how]
    never = {"bgw_restart_time": '"BGW_NEVER_RESTART"', "essential": "true", "bgw_main_arg": argument}
    host = make_host(HEAD + worker("vital", function, **never) + worker("other", "idle"), tasks=TASKS)
    host.start()
    if how == "killed":
        os.kill(host.wait_for_worker("vital")["pid"], signal.SIGKILL)
    assert host.process is not None
    assert host.process.wait(30) == 7
    assert 'shutting down because essential background worker "vital" failed: ' in host.log()
    assert 'it was shut down because essential background worker "vital" failed: ' in host.run_cli("status").stdout


def test_essential_worker_that_is_done_or_terminated(make_host: MakeHost) -> None:
    """A success, an operator's terminate and a reload that removes it are no failures; a restarted one never fails for good."""
    never = {"bgw_restart_time": '"BGW_NEVER_RESTART"', "essential": "true"}
    removed = worker("removed", "idle", **never)
    host = make_host(
        HEAD
        + worker("is done", "leave", bgw_main_arg="0", **never)
        + worker("terminated", "idle", **never)
        + worker("comes back", "leave", bgw_main_arg="1", essential="true", bgw_restart_time="0")
        + removed,
        tasks=TASKS,
    )
    host.start_and_wait()
    host.wait_until(lambda: host.finished("is done"), "one is done")
    host.wait_for_worker("terminated")
    host.wait_for_worker("removed")
    assert host.run_cli("terminate", "--wait", "terminated").returncode == 0
    host.config_path.write_text(host.config_path.read_text().replace(removed, ""))
    assert host.run_cli("reload").returncode == 0
    host.wait_until(lambda: host.slot("removed") is None, "the reload has removed it")
    host.wait_until(lambda: (host.slot("comes back") or {})["restarts"] > 2, "the failing one comes back")
    assert host.status()["host"]["state"] == "run"
    assert host.stop() == 0
