"""notify_demo under a real host with an embedded PostgreSQL."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from bgworker.testing import RunningHost

CONFIG = """
[host]
shared_preload_libraries = ["notify_demo"]
[database]
url = "embedded"
[[worker]]
bgw_name = "heartbeat"
[worker.bgw_main_arg]
every = 0.1
"""
WORKERS = ("heartbeat", "notify_demo listener", "notify_demo counter")


def wait_for_text(host: RunningHost, name: str, text: str) -> None:
    """Wait until a worker says this of itself."""
    host.wait_until(lambda: text in (host.slot(name) or {"activity": {"text": ""}})["activity"]["text"], f'"{name}" says "{text}"')


def test_workers_notify_listen_and_count(bgworker_host: Callable[..., RunningHost]) -> None:
    """C02, C03, C26, C27: an entry point and a hook give workers; a heartbeat at commit wakes one of them and whoever LISTENs."""
    host = bgworker_host(CONFIG)
    slots = {name: host.wait_for_worker(name) for name in WORKERS}
    assert [slots[name]["origin"] for name in WORKERS] == ["static", "dynamic", "dynamic"]
    assert slots["heartbeat"]["bgw_restart_time"] == 5
    wait_for_text(host, "notify_demo counter", "counted to ")
    wait_for_text(host, "notify_demo listener", f"of pid {slots['heartbeat']['pid']}, ")
    listened = host.run_cli("notify-demo", "listen", "--count", "2", "--timeout", "30")
    assert listened.returncode == 0, listened.stderr
    assert [line.endswith(f'"pid": {slots["heartbeat"]["pid"]}}}') for line in listened.stdout.splitlines()] == [True, True]


def test_launcher_runs_ready_once(bgworker_host: Callable[..., RunningHost]) -> None:
    """A launcher that was killed comes back, registers nothing a second time, and goes on with the events."""
    host = bgworker_host(CONFIG)
    pids = [host.wait_for_worker(name)["pid"] for name in WORKERS]

    def launcher() -> dict[str, Any]:
        found: dict[str, Any] = next(slot for slot in host.status()["slots"] if slot["origin"] == "builtin")
        return found

    killed = launcher()
    os.kill(killed["pid"], signal.SIGKILL)

    def is_back() -> bool:
        again = launcher()
        return again["pid"] not in (None, killed["pid"]) and again["activity"]["wait_event"] == "LauncherMain"

    host.wait_until(is_back, "the launcher is back and waits for events")
    assert len(host.status()["slots"]) == len(WORKERS) + 1
    assert [host.wait_for_worker(name)["pid"] for name in WORKERS] == pids
    assert host.run_cli("terminate", "--wait", "notify_demo counter").returncode == 0
    host.wait_until(lambda: "(starts: 0, exits: 1)" in host.run_cli("logs", killed["bgw_name"]).stdout, "the exit is counted")
