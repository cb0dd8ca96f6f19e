"""In what a worker runs: environment, directory, umask, priority and limits, as the process and the kernel see them."""

from __future__ import annotations

import json
import os
import pwd
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bgworker.testing import RunningHost
from tests.end_to_end.other_user import NOBODY, environment_for_others, needs_root, reachable_python
from tests.end_to_end.test_user import said, toml

MakeHost = Callable[..., RunningHost]

TASKS = '''
"""Workers for the tests."""
import json, os, resource
FOUND_AT_IMPORT = os.environ.get("TOKEN")
from bgworker import BackgroundWorker, worker

def facts():
    mask = os.umask(0)
    os.umask(mask)
    return {
        "at_import": FOUND_AT_IMPORT, "environment": {key: os.environ.get(key) for key in ("TOKEN", "A", "B", "HOME")},
        "directory": os.getcwd(), "umask": f"{mask:03o}", "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "nofile": resource.getrlimit(resource.RLIMIT_NOFILE), "core": resource.getrlimit(resource.RLIMIT_CORE),
        "uid": os.getuid(), "name": worker.my_bgworker_entry().bgw_name,
    }

def tells(arg):
    print("FACTS " + json.dumps(facts()), flush=True)
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass

def registers(arg):
    said = {}
    for name, keys in arg.items():
        try:
            handle = worker.register_dynamic_background_worker(
                BackgroundWorker(bgw_name=name, bgw_library_name="tasks", bgw_function_name="tells", **keys))
            said[name] = handle.wait_for_startup(30)[0].name
        except Exception as error:
            said[name] = error.message_primary
    print("SAID " + json.dumps(said), flush=True)
    tells(arg)
'''


def table(name: str, function: str, *lines: str) -> str:
    """Return a [[worker]] of the tests' module."""
    head = ["[[worker]]", f'bgw_name = "{name}"', 'bgw_library_name = "tasks"', f'bgw_function_name = "{function}"']
    return "\n".join([*head, *lines, ""])


HEAD = '[host]\nmax_worker_processes = 8\nshared_preload_libraries = ["tasks"]\n'


def test_what_a_worker_finds(make_host: MakeHost) -> None:
    """Each key is in effect before the library is imported, also in a clone of the loader, and for that worker alone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    host = make_host(
        HEAD
        + table("plain", "tells")
        + table("clone", "tells", 'umask = "027"', "nice = 7", "working_directory = 'var'", "rlimits = { nofile = 200 }")
        + table(
            "own",
            "tells",
            'environment = { TOKEN = "s3cret", A = "file and table" }',
            'env_file = "own.env"',
            'rlimits = { core = { soft = 0, hard = "unlimited" } }' if os.geteuid() == 0 else "rlimits = { core = 0 }",
        ),
        tasks=TASKS,
    )
    (host.directory / "var").mkdir()
    (host.directory / "own.env").write_text("A=file\nB='from s3cret file'\n")
    checked = host.run_cli("check", "--json")
    assert checked.returncode == 0, checked.stderr
    host.start_and_wait()
    plain, clone, own = (said(host, name) for name in ("plain", "clone", "own"))
    assert (plain["at_import"], plain["environment"]["A"], plain["nofile"]) == (None, None, [soft, hard])
    assert clone["directory"] == str(host.directory / "var")
    assert (clone["umask"], clone["nice"], clone["nofile"]) == ("027", 7, [200, 200])
    assert own["at_import"] == "s3cret"
    found = own["environment"]
    assert (found["TOKEN"], found["A"], found["B"]) == ("s3cret", "file and table", "from s3cret file")
    assert own["core"][0] == 0
    # Names alone, wherever a value could be seen.
    config = host.slot("own")["config"]  # type: ignore[index]
    assert config["environment"] == ["A", "TOKEN"]
    assert config["env_file"] == str(host.directory / "own.env")
    assert host.slot("clone")["config"]["rlimits"] == {"nofile": 200}  # type: ignore[index]
    said_by_host = "".join(
        path.read_text() for path in host.data_directory.rglob("*") if path.name in ("host.log", "history.jsonl")
    )
    everything = checked.stdout + json.dumps(host.status()) + said_by_host + host.run_cli("check").stdout
    assert '"TOKEN"' in everything
    assert "s3cret" not in everything


def test_what_cannot_be_had(make_host: MakeHost) -> None:
    """A key that cannot be put into effect is a failed start that names it, and check says so before where it can see it."""
    host = make_host(
        HEAD
        + table("nowhere", "tells", 'working_directory = "/no/such/place"')
        + table("lost", "tells", 'env_file = "lost.env"')
        + table("wrong", "tells", 'env_file = "wrong.env"')
        + table("high", "tells", "rlimits = { nofile = 1_000_000_000_000 }")  # above fs.nr_open, for root too
        + table("good", "tells"),
        tasks=TASKS,
    )
    (host.directory / "wrong.env").write_text("A=1\ns3cret\n")
    expected = {
        "nowhere": 'could not enter working_directory "/no/such/place": No such file or directory',
        "lost": f'could not read env_file "{host.directory}/lost.env": No such file or directory',
        "wrong": f'env_file "{host.directory}/wrong.env" is wrong at line 2: expected NAME=value',
        "high": "could not set rlimits nofile: not allowed to raise maximum limit",
    }
    checked = host.run_cli("check")
    assert checked.returncode == 1
    assert 'background worker "nowhere" would fail to start: working_directory' in checked.stderr
    for name in ("lost", "wrong"):
        assert f'background worker "{name}" would fail to start: {expected[name]}' in checked.stderr
    host.start_and_wait()
    host.wait_for_worker("good")
    for name, reason in expected.items():
        host.wait_until(lambda n=name, r=reason: f"failed to start: {r}" in (host.slot(n) or {})["reason"], reason)  # type: ignore[misc]
        assert f"FATAL:  {reason}" in host.log(name)
    assert "s3cret" not in host.log("wrong") + host.log() + checked.stderr
    # The file is read at each start.
    (host.directory / "wrong.env").write_text("TOKEN=1\n")
    assert said(host, "wrong")["at_import"] == "1"


@needs_root
def test_as_another_user(make_host: MakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory and file are the user's; what it registers cannot shed its limits."""
    monkeypatch.setattr(sys, "executable", reachable_python())
    monkeypatch.setenv("PYTHONPATH", environment_for_others()["PYTHONPATH"])
    user = f'user = "{NOBODY}"'
    asks: dict[str, Any] = {
        "same": {},
        "free": {"rlimits": {"nofile": "unlimited"}},
        "fast": {"nice": 0},
        "dressed": {"environment": {"TOKEN": "x"}, "umask": "077"},
    }
    host = make_host(
        HEAD
        + table("closed", "tells", user, 'working_directory = "closed"')
        + table("secret", "tells", user, 'env_file = "closed.env"')
        + table(
            "registers",
            "registers",
            user,
            "nice = 5",
            "rlimits = { nofile = 200 }",
            'environment = { HOME = "/elsewhere" }',
            f"bgw_main_arg = {toml(asks)}",
        ),
        tasks=TASKS,
    )
    (host.directory / "closed").mkdir(mode=0o700)
    closed = Path(host.directory / "closed.env")
    closed.write_text("A=1\n")
    closed.chmod(0o600)
    host.start_and_wait()
    answers = said(host, "registers", "SAID")
    assert answers == {
        "same": "STARTED",
        "free": 'background worker "free" cannot be registered: permission denied for rlimits',
        "fast": 'background worker "fast" cannot be registered: permission denied for nice',
        "dressed": "STARTED",
    }
    facts = {name: said(host, name) for name in ("registers", "same", "dressed")}
    for name, found in facts.items():
        assert (found["uid"], found["nice"], found["nofile"]) == (NOBODY, 5, [200, 200]), name
    assert facts["registers"]["environment"]["HOME"] == "/elsewhere"
    assert facts["same"]["environment"]["HOME"] == pwd.getpwuid(NOBODY).pw_dir
    assert (facts["dressed"]["at_import"], facts["dressed"]["umask"]) == ("x", "077")
    for name, reason in (("closed", "could not enter working_directory"), ("secret", "could not read env_file")):
        host.wait_until(lambda n=name, r=reason: r in (host.slot(n) or {})["reason"], reason)  # type: ignore[misc]
        assert "Permission denied" in host.slot(name)["reason"]  # type: ignore[index]
