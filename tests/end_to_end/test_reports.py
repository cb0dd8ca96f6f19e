"""What the commands say when something is wrong, or has changed: true, and naming what the user named."""

from __future__ import annotations

import json
from collections.abc import Callable

from bgworker.testing import RunningHost

MakeHost = Callable[..., RunningHost]

TASKS = """
from bgworker import worker
def idle(arg):
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass
"""

WORKER = """
[[worker]]
bgw_name = "{name}"
bgw_library_name = "{library}"
bgw_function_name = "{function}"
"""


def test_check_names_workers_without_a_function(make_host: MakeHost) -> None:
    """C10: check finds out what each start would, names worker, library and function, and is 1."""
    entries = WORKER.format(name="a", library="nosuch", function="f") + WORKER.format(name="b", library="tasks", function="nofn")
    host = make_host(entries + WORKER.format(name="c", library="tasks", function="idle"), tasks=TASKS)
    result = host.run_cli("check")
    assert result.returncode == 1
    assert 'background worker "a" would fail to start: could not load library "nosuch"' in result.stderr
    assert 'background worker "b" would fail to start: could not find function "nofn" in library "tasks"' in result.stderr
    assert '"c"' not in result.stderr


def test_missing_plugin_is_named_once(make_host: MakeHost) -> None:
    """A name in shared_preload_libraries that nothing has is itself the name of what is broken."""
    host = make_host('[host]\nshared_preload_libraries = ["worker_psi"]\n')
    host.start_and_wait()
    assert [entry["name"] for entry in host.status()["broken_plugins"]] == ["worker_psi"]


def test_settings_mistake_reaches_the_terminal(make_host: MakeHost) -> None:
    """What only the plugin can see wrong ends the start with exit code 2, said on standard error and not in the log alone."""
    host = make_host(
        '[host]\nlog = "files"\nshared_preload_libraries = ["typed"]\n[settings.typed]\nnaptime = "2"\n',
        typed="""
from dataclasses import dataclass
from bgworker import hookimpl
@dataclass
class Settings:
    naptime: float = 1.0
@hookimpl
def bgworker_settings():
    return Settings
""",
    )
    host.start()
    assert host.process is not None
    assert host.process.wait(timeout=60) == 2
    assert "[settings.typed] naptime" in host.output.read_text()


def test_reload_says_what_it_did_and_did_not_do(make_host: MakeHost) -> None:
    """C25: changed settings are named with who was told; what only a new start takes up is a warning."""
    entry = WORKER.format(name="c", library="tasks", function="idle")
    host = make_host("[host]\nmax_worker_processes = 4\n" + entry + "[settings.tasks]\nx = 1\n", tasks=TASKS)
    host.start_and_wait()
    host.wait_for_worker("c")
    host.config_path.write_text("[host]\nmax_worker_processes = 5\n" + entry + "[settings.tasks]\nx = 2\n")
    result = host.run_cli("reload")
    assert result.returncode == 0
    assert "settings of tasks changed; 1 worker was told by SIGHUP" in result.stdout
    assert "[host] max_worker_processes changed" in result.stderr


def test_rejected_worker_is_in_the_log(make_host: MakeHost) -> None:
    """A static worker that is not registered is in host.log, not in status alone."""
    host = make_host('[[worker]]\nbgw_name = "hartbeat"\n')
    host.start_and_wait()
    assert [entry["bgw_name"] for entry in host.status()["rejected"]] == ["hartbeat"]
    host.wait_until(lambda: 'background worker "hartbeat" is not registered' in host.log(), "the log says so")


def test_status_after_a_killed_host(make_host: MakeHost) -> None:
    """With the host killed, status says of each worker that was alive that it was, and not how an earlier life ended."""
    host = make_host(WORKER.format(name="c", library="tasks", function="idle"), tasks=TASKS)
    host.start_and_wait()
    host.wait_for_worker("c")
    assert host.run_cli("restart", "c").returncode == 0
    host.wait_until(
        lambda: (host.slot("c") or {}).get("restarts") == 1 and (host.slot("c") or {})["state"] == "started", "it is back"
    )
    history = host.data_directory / "history.jsonl"
    host.wait_until(lambda: history.read_text().count('"started"') == 2, "history has both lives")
    assert host.process is not None
    host.process.kill()
    host.process.wait()
    result = host.run_cli("status", "--json")
    assert result.returncode == 3
    finished = json.loads(result.stdout)["finished"]
    assert [(entry["bgw_name"], entry["reason"]) for entry in finished] == [("c", "was running when its host was killed")]
    table = host.run_cli("status")
    assert table.returncode == 3
    assert "was running when its host was killed" in table.stdout
    assert "Traceback" not in table.stderr


def test_unknown_name_gets_the_nearest(make_host: MakeHost) -> None:
    """A typo in a worker's name is answered with the name that was meant."""
    host = make_host(WORKER.format(name="queue drain", library="tasks", function="idle"), tasks=TASKS)
    host.start_and_wait()
    result = host.run_cli("terminate", "queue drian")
    assert result.returncode == 1
    assert 'The nearest is "queue drain".' in result.stderr
