"""Workers that come after others, under a real host: how they start, what they show, how they stop, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from bgworker import BackgroundWorker
from bgworker.errors import RegistrationError
from bgworker.testing import RunningHost

MakeHost = Callable[..., RunningHost]

HEAD = "[host]\nmax_worker_processes = 12\nshutdown_timeout = 2.0\n"
TASKS = '''
"""Workers for the tests."""
import os, sys, time
from bgworker import worker

def idle(arg):
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass

def migrate(arg):
    while not os.path.exists(arg):
        time.sleep(0.01)
'''


def worker(name: str, function: str = "idle", **keys: str) -> str:
    """Return a [[worker]] table; values are TOML."""
    lines = [f'[[worker]]\nbgw_name = "{name}"\nbgw_library_name = "tasks"\nbgw_function_name = "{function}"']
    return "\n".join([*lines, *(f"{key} = {value}" for key, value in keys.items())]) + "\n"


def happened(host: RunningHost, event: str) -> list[str]:
    """Return the names of the workers in the order in which something happened to them."""
    path = host.data_directory / "history.jsonl"
    records: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [record["bgw_name"] for record in records if record["event"] == event]


def test_start_in_order_and_stop_in_reverse(make_host: MakeHost, tmp_path: Any) -> None:
    """C39: workers start after those that they name, say so while they wait, and are stopped before them."""
    gate = tmp_path / "gate"
    host = make_host(
        HEAD
        + worker("front", after='["api:ready"]')
        + worker("api", after='["migrate:finished", "cache"]')
        + worker("cache")
        + worker("migrate", "migrate", bgw_main_arg=json.dumps(str(gate))),
        tasks=TASKS,
    )
    host.start_and_wait()
    host.wait_for_worker("cache")
    host.wait_for_worker("migrate")
    waiting = host.wait_for_worker("api", "not_yet_started")
    host.wait_until(lambda: "migrate:finished;" in (host.slot("api") or {})["reason"], "cache is no longer waited for")
    assert waiting["config"]["after"] == ["migrate:finished", "cache:started"]
    why = host.run_cli("why", "front").stdout
    assert 'Background worker "front"' in why
    assert "waits for api:ready; starts when it is." in why
    assert "waits for migrate:finished; starts when it is." in why
    gate.touch()
    host.wait_for_worker("front")
    assert [name for name in happened(host, "started") if name in ("api", "front")] == ["api", "front"]
    assert host.stop() == 0
    assert happened(host, "exited")[-3:] == ["front", "api", "cache"]


def test_refused_before_anything_starts(make_host: MakeHost) -> None:
    """Circles and unknown names: check, run and reload refuse them by name; a dynamic registration does, too."""
    good = HEAD + worker("a") + worker("b", after='["a"]', restart_on='"always"')
    circle = HEAD + worker("a", after='["b:ready"]') + worker("b", after='["a"]')
    host = make_host(circle, tasks=TASKS)
    for command in ("check", "run"):
        refused = host.run_cli(command)
        assert refused.returncode == 2
        assert "background workers wait for each other: a after b after a" in refused.stderr
    assert happened(host, "started") == []
    (host.directory / "workers.toml").write_text(good)
    host.start_and_wait()
    pid = host.wait_for_worker("b")["pid"]
    (host.directory / "workers.toml").write_text(good + worker("c", after='["nobody:ready"]'))
    refused = host.run_cli("reload")
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert 'background worker "c" cannot be registered: after names "nobody"' in refused.stderr
    assert host.slot("b")["pid"] == pid  # type: ignore[index]
    with host.client() as client:

        def register(name: str, *after: str) -> str:
            keys = {"bgw_library_name": "tasks", "bgw_function_name": "idle", "after": after}
            try:
                client.register_dynamic_background_worker(BackgroundWorker(bgw_name=name, **keys))
            except RegistrationError as error:
                return error.message_primary
            return ""

        assert 'after names "nobody", and there is no such worker' in register("d", "a", "nobody")
        assert register("a", "b") == "background workers wait for each other: a after b after a"
        assert register("d", "b:ready") == ""
        assert register("e", "a:finished", "b:finished") == ""
    host.wait_for_worker("d")
    said = 'WARNING:  background worker "e" waits for ever: it comes after "b:finished", and that never is: restart_on = "always"'
    host.wait_until(lambda: said in host.log(), "the log warns of a wait without an end")
    assert 'comes after "a:finished"' not in host.log()
