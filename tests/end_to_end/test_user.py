"""``user`` and ``group``: a worker that runs as somebody else, and what it may not do."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bgworker.testing import RunningHost, processes_below
from tests.end_to_end.other_user import NOBODY, environment_for_others, needs_root, reachable_python, some_group

pytestmark = needs_root

MakeHost = Callable[..., RunningHost]
USER = pwd.getpwuid(NOBODY).pw_name if os.geteuid() == 0 else ""

TASKS = '''
"""Workers for the tests."""
import json, os, signal
IMPORTED_AS = (os.getuid(), os.getgid())
from bgworker import DATABASE_WORKER_FLAGS, BackgroundWorker, BgWorkerStartTime, spi, worker
from bgworker._worker import runtime

def facts():
    status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
    undone = []
    for way, argument in ((os.setuid, 0), (os.setgid, 0), (os.setgroups, [])):
        try:
            way(argument)
            undone.append(way.__name__)
        except PermissionError:
            pass
    with open("/dev/stderr", "a") as file:
        file.write("reopened\\n")
    return {
        "imported_as": IMPORTED_AS, "uids": os.getresuid(), "gids": os.getresgid(), "groups": os.getgroups(), "undone": undone,
        "no_new_privs": status["NoNewPrivs"], "capabilities": [status[key] for key in ("CapPrm", "CapEff", "CapAmb")],
        "home": os.environ["HOME"], "name": os.environ["USER"],
        "fds": sorted(os.readlink(f"/proc/self/fd/{fd}").split(":")[0] for fd in os.listdir("/proc/self/fd")
                      if os.path.lexists(f"/proc/self/fd/{fd}") and not os.readlink(f"/proc/self/fd/{fd}").startswith("/proc")),
    }

def idle(arg):
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass

def busy(arg):
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        pass

def tells(arg):
    print("FACTS " + json.dumps(facts()), flush=True)
    idle(arg)

def registers(arg):
    """Register workers, and tell what became of each."""
    said = {}
    for name, keys in arg.items():
        keys = keys | ({"bgw_flags": DATABASE_WORKER_FLAGS} if "bgw_flags" in keys else {})
        if "bgw_start_time" in keys:
            keys["bgw_start_time"] = BgWorkerStartTime[keys["bgw_start_time"]]
        try:
            handle = worker.register_dynamic_background_worker(
                BackgroundWorker(bgw_name=name, bgw_library_name="tasks", bgw_function_name="tells", **keys))
            said[name] = handle.wait_for_startup(30)[0].name
        except Exception as error:
            said[name] = error.message_primary
    print("SAID " + json.dumps(said), flush=True)
    idle(None)
'''


def table(name: str, function: str, *lines: str) -> str:
    """Return a [[worker]] of the tests' module."""
    return "\n".join(
        ["[[worker]]", f'bgw_name = "{name}"', 'bgw_library_name = "tasks"', f'bgw_function_name = "{function}"', *lines, ""]
    )


@pytest.fixture
def make_open_host(make_host: MakeHost, monkeypatch: pytest.MonkeyPatch) -> MakeHost:
    """Return a maker of hosts whose interpreter every user can run."""
    monkeypatch.setattr(sys, "executable", reachable_python())
    monkeypatch.setenv("PYTHONPATH", environment_for_others()["PYTHONPATH"])
    return make_host


def said(host: RunningHost, name: str, word: str = "FACTS") -> dict[str, Any]:
    """Return what a worker printed behind a word."""
    line = host.wait_until(
        lambda: next((line for line in host.log(name).splitlines() if f"{word} " in line), ""), f"{name} has said {word}"
    )
    found: dict[str, Any] = json.loads(line.partition(f"{word} ")[2])
    return found


def test_worker_of_another_user(make_open_host: MakeHost) -> None:
    """A worker with user is imported and run as that user for good, also if its library is preloaded."""
    group = some_group()
    head = '[host]\nmax_worker_processes = 8\nshared_preload_libraries = ["tasks"]\n'
    host = make_open_host(
        head
        + table("plain", "tells", f'user = "{USER}"')
        + table("grouped", "tells", f'user = "{NOBODY}"', f'group = "{group.gr_name}"'),
        tasks=TASKS,
    )
    host.start_and_wait()
    plain, grouped = said(host, "plain"), said(host, "grouped")
    own = pwd.getpwuid(NOBODY)
    assert plain["imported_as"] == [NOBODY, own.pw_gid]
    assert plain["uids"] == grouped["uids"] == [NOBODY] * 3
    assert plain["gids"] == [own.pw_gid] * 3
    assert grouped["gids"] == [group.gr_gid] * 3
    assert set(plain["groups"]) == set(os.getgrouplist(USER, own.pw_gid))
    assert 0 not in grouped["groups"]
    assert plain["undone"] == grouped["undone"] == []
    assert plain["no_new_privs"] == "1"
    assert {int(value, 16) for value in plain["capabilities"]} == {0}
    assert (plain["home"], plain["name"]) == (own.pw_dir, USER)
    # Nothing of the host's but what every worker has: the log pipes, its channel, lifeline and the two tables.
    assert Counter(plain["fds"]) == Counter({"pipe": 5, "socket": 1, "/memfd": 2, "/dev/null": 1})
    assert host.slot("plain")["config"]["user"] == USER  # type: ignore[index]


def test_host_has_it_in_its_hand(make_open_host: MakeHost) -> None:
    """C24: a worker of another user is stopped and killed as any, outlives the loader, and not the host."""
    host = make_open_host(
        "[host]\nmax_worker_processes = 8\n"
        + table("idle", "idle", f'user = "{USER}"')
        + table("busy", "busy", f'user = "{USER}"', "stop_timeout = 0.2"),
        tasks=TASKS,
    )
    host.start_and_wait()
    pids = {name: host.wait_for_worker(name)["pid"] for name in ("idle", "busy")}
    loader = next(pid for pid, command in processes_below(str(host.directory)).items() if "loader" in command)
    os.kill(loader, signal.SIGKILL)
    assert host.run_cli("restart", "idle").returncode == 0
    host.wait_until(lambda: host.wait_for_worker("idle")["pid"] != pids["idle"], "the worker was restarted")
    assert host.wait_for_worker("busy")["pid"] == pids["busy"]
    assert host.run_cli("terminate", "busy", "--wait").returncode == 0
    assert host.run_cli("start", "busy").returncode == 0
    alive = [host.wait_for_worker(name)["pid"] for name in pids]
    host.stop(signal.SIGKILL)
    host.process = None
    try:
        host.wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in alive), "no worker is left", timeout=10)
    finally:
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_registrations_of_a_worker_with_a_user(make_open_host: MakeHost) -> None:
    """What such a worker registers runs as the same user, whatever it asks for; a database connection it cannot give."""
    start = {"bgw_start_time": "BgWorkerStart_PostmasterStart"}
    asks = {
        "same": start,
        "named": {**start, "user": USER},
        "root": {**start, "user": "root"},
        "other group": {**start, "group": "root"},
        "base": {"bgw_flags": 3},
        "vital": {**start, "essential": True},
    }
    host = make_open_host(
        "[host]\nmax_worker_processes = 8\n[database]\nurl = 'postgresql://127.0.0.1:1/x'\n"
        + table(
            "registers",
            "registers",
            f'user = "{USER}"',
            'bgw_start_time = "BgWorkerStart_PostmasterStart"',
            f"bgw_main_arg = {toml(asks)}",
        ),
        tasks=TASKS,
    )
    host.start()
    answers = said(host, "registers", "SAID")
    assert (answers["same"], answers["named"]) == ("STARTED", "STARTED")
    assert answers["root"] == 'background worker "root" cannot be registered: permission denied for user'
    assert answers["other group"] == 'background worker "other group" cannot be registered: permission denied for group'
    assert answers["base"] == 'background worker "base" cannot be registered: permission denied for a database connection'
    assert answers["vital"] == 'background worker "vital" cannot be registered: permission denied for essential'
    assert said(host, "same")["uids"] == [NOBODY] * 3
    assert host.slot("same")["config"]["user"] == USER  # type: ignore[index]


def toml(value: dict[str, Any]) -> str:
    """Return tables of texts, numbers and booleans as an inline table."""
    return "{" + ", ".join(f'"{k}" = {toml(v) if isinstance(v, dict) else json.dumps(v)}' for k, v in value.items()) + "}"


def test_unknown_user_is_a_failed_start(make_open_host: MakeHost) -> None:
    """A user or group that does not exist fails the start, by name, and check says so before."""
    host = make_open_host(
        "[host]\nmax_worker_processes = 8\n"
        + table("lost", "idle", 'user = "no-such-user"')
        + table("grouped", "idle", 'group = "no-such-group"')
        + table("number", "idle", 'user = "123456"'),
        tasks=TASKS,
    )
    checked = host.run_cli("check")
    assert checked.returncode == 1
    assert 'background worker "lost" would fail to start: user "no-such-user" does not exist' in checked.stderr
    assert "HINT:  Create it first." in checked.stderr
    host.start_and_wait()
    expected = {
        "lost": 'failed to start: user "no-such-user" does not exist',
        "grouped": 'failed to start: group "no-such-group" does not exist',
        "number": 'failed to start: user "123456" has no group',
    }
    for name, reason in expected.items():
        host.wait_until(lambda n=name, r=reason: host.slot(n)["last_exit"] and r in host.slot(n)["last_exit"]["reason"], reason)  # type: ignore[misc]
        assert f"FATAL:  {reason.partition(': ')[2]}" in host.log(name)


def test_interpreter_out_of_reach(make_open_host: MakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter in a home of mode 0700 is named as what keeps the worker from starting, by check, too; others run."""
    closed = Path(tempfile.mkdtemp())  # of mode 0700
    try:
        (closed / "python").symlink_to(reachable_python())
        monkeypatch.setattr(sys, "executable", str(closed / "python"))
        host = make_open_host(
            "[host]\nmax_worker_processes = 8\n" + table("closed", "idle", f'user = "{USER}"') + table("open", "idle"), tasks=TASKS
        )
        checked = host.run_cli("check")
        assert checked.returncode == 1
        cannot = f'would fail to start: user "{USER}" cannot reach the interpreter: "{closed}" is closed to it'
        assert f'ERROR:  background worker "closed" {cannot}\n' in checked.stderr
        assert checked.stderr.count("ERROR") == 1
        host.start_and_wait()
        host.wait_for_worker("open")
        reason = f'failed to start: user "{USER}" cannot reach the interpreter: "{closed}" is closed to it'
        host.wait_until(lambda: reason in (host.slot("closed") or {})["reason"], reason)
    finally:
        shutil.rmtree(closed)


def test_check_looks_with_the_eyes_of_the_user(make_open_host: MakeHost) -> None:
    """What root can enter, read and execute, and the worker's user cannot, is found before a start."""
    closed, open_directory = Path(tempfile.mkdtemp()), Path(tempfile.mkdtemp())  # of mode 0700
    open_directory.chmod(0o755)
    try:
        (closed / "variables").write_text("A=1\n")
        (closed / "program").symlink_to("/bin/true")
        (open_directory / "link").symlink_to(closed / "program")
        shutil.copy("/bin/true", open_directory / "own").chmod(0o744)
        user = f'user = "{USER}"\n'
        host = make_open_host(
            "[host]\nmax_worker_processes = 16\n"
            + table("directory", "idle", f'{user}working_directory = "{closed}"')
            + table("variables", "idle", f'{user}env_file = "{closed}/variables"')
            + f'[[worker]]\nbgw_name = "program"\ncommand = ["{closed}/program"]\n{user}'
            + f'[[worker]]\nbgw_name = "linked"\ncommand = ["{open_directory}/link"]\n{user}'
            + f'[[worker]]\nbgw_name = "owned"\ncommand = ["{open_directory}/own"]\n{user}'
            + f'[[worker]]\nbgw_name = "on path"\ncommand = ["program"]\n{user}environment = {{ PATH = "/bin:{closed}" }}\n'
            + f'[[worker]]\nbgw_name = "good"\ncommand = ["true"]\n{user}working_directory = "/"\n'
            + table("root", "idle", f'working_directory = "{closed}"')
            + f'[[worker]]\nbgw_name = "same"\ncommand = ["{closed}/none"]\nuser = "root"\n',
            tasks=TASKS,
        )
        refused = host.run_cli("check").stderr
        assert refused.count("ERROR") == 7, refused
        assert f'"same" would fail to start: there is no program "{closed}/none"' in refused
        assert f'"directory" would fail to start: could not enter working_directory "{closed}": Permission denied' in refused
        assert f'"variables" would fail to start: could not read env_file "{closed}/variables": Permission denied' in refused
        is_closed = f'by user "{USER}": "{closed}" is closed to it'
        assert f'"program" would fail to start: program "{closed}/program" cannot be reached {is_closed}' in refused
        assert f'"linked" would fail to start: program "{open_directory}/link" cannot be reached {is_closed}' in refused
        assert f'"owned" would fail to start: program "{open_directory}/own" cannot be executed by user "{USER}"' in refused
        assert 'DETAIL:  Its mode is 0744, and it belongs to user "root".' in refused
        assert '"on path" would fail to start: there is no program "program" on PATH' in refused
        assert f'PATH is /bin:{closed}. User "{USER}" cannot look into "{closed}".' in refused
        host.start_and_wait()
        reason = f'failed to start: program "{closed}/program" cannot be reached {is_closed}'
        host.wait_until(lambda: reason in (host.slot("program") or {})["reason"], reason)
    finally:
        shutil.rmtree(closed)
        shutil.rmtree(open_directory)


def test_strays_of_another_user(make_open_host: MakeHost) -> None:
    """T08: a daemon that a worker of another user leaves behind is found by its mark and ends with the worker."""
    leaves = """
def leaves(arg):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            print("FACTS", json.dumps({"pid": os.getpid()}), flush=True)
            signal.pause()
        os._exit(0)
    idle(arg)
"""
    host = make_open_host(
        "[host]\nmax_worker_processes = 8\n" + table("leaves", "leaves", f'user = "{USER}"'), tasks=TASKS + leaves
    )
    host.start_and_wait()
    stray = said(host, "leaves")["pid"]
    assert host.run_cli("terminate", "leaves", "--wait").returncode == 0
    host.wait_until(lambda: not os.path.exists(f"/proc/{stray}"), "the daemon has ended")


def test_embedded_database_is_out_of_reach(make_open_host: MakeHost) -> None:
    """A database worker of a user that cannot reach the embedded server is told so; the server's own user can."""
    flags = 'bgw_flags = ["BGWORKER_SHMEM_ACCESS", "BGWORKER_BACKEND_DATABASE_CONNECTION"]'
    tasks = (
        TASKS
        + """
def connects(arg):
    worker.unblock_signals()
    worker.connect()
    with spi.transaction():
        print("FACTS", json.dumps({"role": spi.execute("SELECT current_user").fetchone()[0]}), flush=True)
    idle(arg)
"""
    )
    host = make_open_host(
        '[host]\nmax_worker_processes = 8\n[database]\nurl = "embedded"\n'
        + table("stranger", "connects", f'user = "{USER}"', flags)
        + table("servers-own", "connects", 'user = "bgworker"', flags),
        tasks=tasks,
    )
    host.start_and_wait()
    reason = f'failed to start: user "{USER}" cannot reach the embedded PostgreSQL'
    host.wait_until(lambda: reason in (host.slot("stranger") or {})["reason"], reason)
    assert said(host, "servers-own") == {"role": "postgres"}


def test_secrets_of_the_host_stay_with_it(make_open_host: MakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that workers.toml takes a URL from is not in the environment of a worker of another user."""
    monkeypatch.setenv("SHOP_DATABASE", "postgresql://u:secret@127.0.0.1:1/x")
    tells = (
        '\ndef knows(arg):\n    print("FACTS", json.dumps({"knows": "SHOP_DATABASE" in os.environ}), flush=True)\n    idle(arg)\n'
    )
    start = 'bgw_start_time = "BgWorkerStart_PostmasterStart"'
    host = make_open_host(
        '[host]\nmax_worker_processes = 8\n[database]\nurl = { env = "SHOP_DATABASE" }\n'
        + table("own", "knows", start)
        + table("other", "knows", start, f'user = "{USER}"'),
        tasks=TASKS + tells,
    )
    host.start()
    assert said(host, "own") == {"knows": True}
    assert said(host, "other") == {"knows": False}
