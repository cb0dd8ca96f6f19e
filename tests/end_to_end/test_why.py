"""History, why and logs on a running host."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bgworker.testing import RunningHost

MakeHost = Callable[..., RunningHost]

MODULE = (Path(__file__).parent / "explained_module.py").read_text()
WORKER = '[[worker]]\nbgw_name = "{}"\nbgw_library_name = "explained"\nbgw_function_name = "{}"\n{}\n'


def exits(host: RunningHost, name: str) -> list[dict[str, Any]]:
    """Return the records of a worker's exits."""
    path = host.data_directory / "history.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines]
    return [record for record in records if record["event"] == "exited" and record["bgw_name"] == name]


def test_every_exit_is_in_the_history(make_host: MakeHost) -> None:
    """History has code, signal, uptime, use, versions, last lines and traceback of each exit, and who asked for it."""
    host = make_host(
        "[host]\nmax_worker_processes = 6\n"
        + WORKER.format("fails", "fails", 'bgw_main_arg = "db1"\nbgw_restart_time = 600')
        + WORKER.format("idle", "idle", "")
        + WORKER.format("no lib", "idle", "bgw_restart_time = 600").replace('"explained"', '"nolib"'),
        explained=MODULE,
    )
    host.start_and_wait()
    (failed,) = host.wait_until(lambda: exits(host, "fails"), "the history has the failure")
    assert (failed["code"], failed["signal"], failed["signal_name"], failed["was_requested"]) == (1, None, None, False)
    assert failed["asked_by"] is None
    assert failed["uptime"] >= 0
    assert failed["usage"]["max_rss"] > 1_000_000
    assert failed["versions"] == {"bgworker": host.status()["host"]["version"], "library": None}
    assert len(failed["stderr"]) == 50
    assert failed["stderr"][-1] == "ConnectionError: connection refused by db1"
    assert failed["traceback"].startswith("Traceback (most recent call last):")
    assert "KeyError: 'missing'\n\nThe above exception was the direct cause" in failed["traceback"]
    (not_started,) = host.wait_until(lambda: exits(host, "no lib"), "the history has the failed start")
    assert (not_started["uptime"], not_started["code"]) == (None, 1)
    assert not_started["reason"].startswith('failed to start: could not load library "nolib"')

    pid = host.wait_for_worker("idle")["pid"]
    os.kill(pid, signal.SIGSEGV)
    (crashed,) = host.wait_until(lambda: exits(host, "idle"), "the history has the crash")
    assert (crashed["code"], crashed["signal"], crashed["signal_name"], crashed["is_crash"]) == (None, 11, "SIGSEGV", True)
    assert crashed["stderr"][0].startswith("Fatal Python error: Segmentation fault")

    host.wait_until(lambda: (host.slot("idle") or {}).get("pid") not in (None, pid), "it is back")
    host.wait_for_worker("idle")
    assert host.run_cli("restart", "idle").returncode == 0
    requested = host.wait_until(lambda: exits(host, "idle")[1:], "the history has the restart")[0]
    assert requested["was_requested"]
    assert (requested["asked_by"]["who"], requested["asked_by"]["uid"]) == ("operator", os.getuid())
    assert requested["asked_by"]["what"] == "restart requested"
    host.wait_for_worker("idle")
    last_exit = (host.slot("idle") or {})["last_exit"]
    assert last_exit.keys() == {"code", "signal", "at", "reason"}
    assert last_exit["reason"] == "exit 1, as asked: restart requested"
    troubles = json.loads(host.run_cli("status", "--check", "--json").stdout)["troubles"]
    assert not any('"idle"' in sentence for sentence in troubles), "an exit that was asked for is no failure"

    why = host.run_cli("why", "fails")
    assert (why.returncode, why.stderr) == (0, "")
    assert why.stdout.startswith(
        'Background worker "fails" (0.1) is not running: exit 1: ConnectionError: connection refused by db1;'
    )
    assert "Start it now, without waiting: bgworker start fails" in why.stdout
    assert "could not load library" in host.run_cli("why", "no lib").stdout
    assert host.stop() == 0
    assert exits(host, "idle")[-1]["asked_by"] == {"who": "shutdown", "what": "stopped because the host shuts down"}
    down = host.run_cli("why", "fails")
    assert down.returncode == 3
    assert "is not running: the host is down." in down.stdout
    assert "ConnectionError: connection refused by db1" in down.stdout


@pytest.mark.parametrize("preload", ["", 'shared_preload_libraries = ["explained"]'])
def test_records_of_logging_keep_level_and_logger(make_host: MakeHost, preload: str) -> None:
    """A worker that has configured no logging has level and logger in its log, born either way."""
    host = make_host(f"[host]\n{preload}\n" + WORKER.format("w", "logs", ""), explained=MODULE)
    host.start_and_wait()
    host.wait_until(lambda: "plain text" in host.log("w"), "the worker has written all")
    texts = [line.partition("w: ")[2] for line in host.log("w").splitlines()]
    assert texts[:4] == [
        "WARNING:  shop.queue: queue is 7 long",
        "ERROR:  shop.queue: two",
        "lines",
        "Traceback (most recent call last):",
    ]
    assert texts[-2:] == ["ZeroDivisionError: division by zero", "plain text"]
    assert not any("not said" in text for text in texts)


def test_json_logs_of_a_host(make_host: MakeHost) -> None:
    """With log_format = "json" every line of every file is an object; logs gives out either format, by time and by pattern."""
    host = make_host('[host]\nlog_format = "json"\n' + WORKER.format("w", "logs", ""), explained=MODULE)
    host.start_and_wait()
    host.wait_until(lambda: "plain text" in host.log("w"), "the worker has written all")
    records = [json.loads(line) for line in host.log("w").splitlines()]
    assert [record["message"] for record in records] == ["queue is 7 long", "two\nlines", "plain text"]
    assert (records[1]["level"], records[1]["logger"]) == ("ERROR", "shop.queue")
    assert records[1]["exc"].endswith("ZeroDivisionError: division by zero")
    assert all(json.loads(line)["pid"] for line in host.log().splitlines())
    found = host.run_cli("logs", "--since", "10m", "--grep", r"shop\.queue: queue", "w").stdout
    assert found.endswith("w: WARNING:  shop.queue: queue is 7 long\n")
    found = host.run_cli("logs", "--json", "-n", "1", "w").stdout
    assert json.loads(found)["message"] == "plain text"
    assert host.run_cli("logs", "--since", "2999-01-01", "w").stdout == ""


def test_own_handlers_of_a_worker_stay(make_host: MakeHost) -> None:
    """A worker that calls logging.basicConfig() gets what it asked for; in JSON its level and logger are fields all the same."""
    module = """
import logging
from bgworker import worker
def main(arg):
    logging.basicConfig(level=logging.INFO)
    logging.getLogger("shop").info("hello")
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass
"""
    host = make_host('[host]\nlog_format = "json"\n' + WORKER.format("w", "main", ""), explained=module)
    host.start_and_wait()
    line = host.wait_until(lambda: host.log("w"), "the worker has written").splitlines()[0]
    record = json.loads(line)
    assert (record["level"], record["logger"], record["message"]) == ("INFO", "shop", "hello")
