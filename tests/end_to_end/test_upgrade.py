"""New code under running workers: it is noticed, rolled out, and stopped where it fails."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bgworker._version import __version__
from bgworker.testing import RunningHost
from tests.end_to_end.test_life import TASKS, worker

MakeHost = Callable[..., RunningHost]

HEAD = '[host]\nmax_worker_processes = 8\nshared_preload_libraries = ["tasks"]\n'
FOUR = "".join(worker(name, "idle") for name in ("a", "b", "c", "d"))
READY = "\nfrom bgworker import hookimpl\n\n@hookimpl\ndef bgworker_ready(host): ...\n"
MORE = "\ndef job(arg):\n    import time\n    time.sleep(3600)\n"


def pids(host: RunningHost) -> dict[str, Any]:
    """Return the process of each worker."""
    return {slot["bgw_name"]: slot["pid"] for slot in host.status()["slots"]}


def start(host: RunningHost, *names: str) -> dict[str, Any]:
    """Start the host and wait for its workers."""
    host.start_and_wait()
    for name in names:
        host.wait_for_worker(name)
    return pids(host)


def write_code(host: RunningHost, text: str) -> None:
    """Replace the library as an installation does: another file, of another time."""
    path = host.directory / "tasks.py"
    at = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(at + 10**9, at + 10**9))


def install(host: RunningHost, version: str) -> None:
    """Leave the metadata of the library's distribution beside it, as pip does."""
    for old in host.directory.glob("shop_tasks-*.dist-info"):
        shutil.rmtree(old)
    metadata = host.directory / f"shop_tasks-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: shop-tasks\nVersion: {version}\n")
    (metadata / "entry_points.txt").write_text("[bgworker.plugins]\ntasks = tasks\n")


def test_old_code_is_noticed_and_upgraded(make_host: MakeHost) -> None:
    """Status and plan name the workers with old code; upgrade restarts them all and nobody else."""
    host = make_host(HEAD + FOUR, tasks=TASKS, other=TASKS.replace("idle", "rest"))
    install(host, "1.0")
    before = start(host, "a", "b", "c", "d")
    assert host.run_cli("register", "other:rest", "--name", "bystander", "--wait").returncode == 0
    bystander = pids(host)["bystander"]
    assert json.loads(host.run_cli("plan", "--json").stdout)["old_code"] == []
    install(host, "1.1")
    write_code(host, TASKS + MORE)
    status = json.loads(host.run_cli("status", "--json").stdout)
    assert {s["bgw_name"] for s in status["slots"] if s["config"]["code"]["is_old"]} == {"a", "b", "c", "d"}
    assert "old code runs in a (shop-tasks 1.0, 1.1 is installed)" in host.run_cli("status").stderr
    plan = host.run_cli("plan")
    assert plan.returncode == 0
    assert "old code  b runs shop-tasks 1.0, 1.1 is installed" in plan.stdout
    result = host.run_cli("upgrade", "--settle", "0.1")
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("4 workers upgraded\n")
    after = pids(host)
    assert not {after[name] for name in before} & set(before.values())
    assert after["bystander"] == bystander
    assert host.run_cli("upgrade").stdout == "no worker runs old code\n"
    # What is born from now on is of the new loader.
    assert host.run_cli("register", "tasks:job", "--name", "job", "--wait").returncode == 0


def test_workers_of_an_older_bgworker(make_host: MakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a reexec to another version status, plan and why name the workers that have the older one; upgrade renews them."""
    (tmp_path / "sitecustomize.py").write_text("import bgworker._version\nbgworker._version.__version__ = '0.0.9'\n")
    host = make_host(HEAD + FOUR + '[[worker]]\nbgw_name = "program"\ncommand = ["sleep", "1000"]\n', tasks=TASKS + READY)
    with monkeypatch.context() as patched:
        patched.setenv("PYTHONPATH", str(tmp_path))
        host.start()
    everybody = {*"abcd", "bgworker launcher"}
    for name in (*everybody, "program"):
        host.wait_for_worker(name)
    assert host.run_cli("status").stderr == ""
    (tmp_path / "sitecustomize.py").unlink()
    assert f"bgworker 0.0.9 goes on as {__version__}" in host.run_cli("reexec").stdout
    words = f"bgworker 0.0.9, the host {__version__}"
    status = json.loads(host.run_cli("status", "--json").stdout)
    assert {s["bgw_name"] for s in status["slots"] if s["config"]["code"].get("is_old")} == everybody
    assert f"old code runs in a ({words}), " in host.run_cli("status").stderr
    assert f"old code  d runs {words}\n" in host.run_cli("plan").stdout
    why = host.run_cli("why", "a").stdout
    assert f"It runs old code: {words}.\n" in why
    assert "  Restart it with the new code: bgworker upgrade a\n" in why
    program = pids(host)["program"]
    assert host.run_cli("upgrade", "--settle", "0", "--canary", "8").stdout.endswith("5 workers upgraded\n")
    assert host.run_cli("status").stderr == ""
    assert pids(host)["program"] == program
    ended = [json.loads(line) for line in (host.data_directory / "history.jsonl").read_text().splitlines()]
    assert {end["versions"]["bgworker"] for end in ended if end["event"] == "exited"} == {"0.0.9"}


def test_upgrade_stops_at_the_first_failure(make_host: MakeHost) -> None:
    """A canary that does not stay up ends the upgrade with exit code 1; the others keep their processes."""
    host = make_host(HEAD + FOUR, tasks=TASKS)
    before = start(host, "a", "b", "c", "d")
    write_code(host, TASKS.replace("def idle(arg):", "def idle(arg):\n    time.sleep(0.2)\n    raise ValueError('new bug')"))
    result = host.run_cli("upgrade", "--settle", "5")
    assert result.returncode == 1
    assert 'background worker "a" failed with the new code' in result.stderr
    assert 'Left as they were: "b", "c", "d".' in result.stderr
    assert "new bug" in result.stdout
    after = pids(host)
    assert {name: after[name] for name in "bcd"} == {name: before[name] for name in "bcd"}


def test_module_that_is_not_preloaded(make_host: MakeHost) -> None:
    """A plain module is read at each start: after a restart by hand its worker's code is new."""
    host = make_host("[host]\nmax_worker_processes = 2\n" + worker("a", "idle"), tasks=TASKS)
    start(host, "a")
    write_code(host, TASKS + MORE)
    assert "old code" in host.run_cli("status").stderr
    old = pids(host)["a"]
    assert host.run_cli("restart", "a").returncode == 0
    host.wait_until(lambda: host.wait_for_worker("a")["pid"] != old, "it runs again")
    assert "old code" not in host.run_cli("status").stderr


def test_code_that_cannot_run(make_host: MakeHost) -> None:
    """C10: a plugin that cannot be imported changes nothing, exit code 2; a start that fails ends the upgrade as a crash does."""
    host = make_host(HEAD + FOUR, tasks=TASKS)
    before = start(host, "a", "b", "c", "d")
    write_code(host, "1 / 0\n")
    result = host.run_cli("upgrade")
    assert result.returncode == 2
    assert "ZeroDivisionError" in result.stderr
    assert pids(host) == before
    write_code(host, TASKS.replace("def idle(arg):", "def idle2(arg):"))
    result = host.run_cli("upgrade", "--json")
    assert result.returncode == 1, result.stderr
    report = json.loads(result.stdout)
    assert [entry["bgw_name"] for entry in report["failed"]] == ["a"]
    assert [entry["bgw_name"] for entry in report["left"]] == ["b", "c", "d"]
    assert pids(host)["d"] == before["d"]


def test_whom_an_upgrade_concerns(make_host: MakeHost) -> None:
    """C29: it starts nothing that is down and interrupts no job; those that are named are restarted with the same code, too."""
    host = make_host(HEAD + FOUR, tasks=TASKS + MORE)
    start(host, "a", "b", "c", "d")
    assert host.run_cli("terminate", "--wait", "a").returncode == 0
    assert host.run_cli("register", "tasks:job", "--name", "job", "--wait").returncode == 0
    job = pids(host)["job"]
    write_code(host, TASKS + MORE + "\n# again\n")
    result = host.run_cli("upgrade", "--settle", "0", "--canary", "8")
    assert result.returncode == 0, result.stderr
    assert 'left alone, because they are jobs: "job"' in result.stdout
    assert "3 workers upgraded" in result.stdout
    between = pids(host)
    assert between["job"] == job
    assert "a" not in between
    assert host.run_cli("upgrade", "nobody").returncode == 1
    assert host.run_cli("upgrade", "--settle", "0", "b").returncode == 0
    after = pids(host)
    assert {name for name in after if after[name] != between[name]} == {"b"}
