"""What members of control_group may do, what workers may do over their channels, and what nobody else may."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from bgworker.testing import RunningHost
from tests.end_to_end.other_user import NOBODY, ask_as, needs_root, reachable_python, some_group

MakeHost = Callable[..., RunningHost]

TASKS = '''
"""Workers for the tests."""
import json, sys
from bgworker import BackgroundWorker, worker
from bgworker._worker import runtime

def idle(arg):
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass

other = idle

def asks(path):
    """Register a worker, then ask for things as a worker; write down how each ended."""
    channel, said = runtime.current().channel, {}
    handle = worker.register_dynamic_background_worker(
        BackgroundWorker(bgw_name="child", bgw_library_name="tasks", bgw_function_name="idle"))
    handle.wait_for_startup(20)
    for key, method, params in [
        ("other", "terminate", {"name": "victim"}), ("other again", "restart", {"name": "victim"}),
        ("signal", "signal", {"name": "victim", "signal": "KILL"}), ("stop", "stop", {"mode": "fast"}),
        ("reload", "reload", {}), ("status", "status", {}), ("signal child", "signal", {"name": "child", "signal": "WINCH"}),
        ("terminate child", "terminate", {"name": str(handle)}),
    ]:
        try:
            channel.request(method, params)
            said[key] = "done"
        except Exception as error:
            said[key] = error.message_primary
    handle.wait_for_shutdown(20)
    try:
        channel.request("terminate", {"name": str(handle)})
        said["again"] = "done"
    except Exception as error:
        said["again"] = error.message_primary
    with open(path, "w") as file:
        json.dump(said, file)
    channel.request("terminate", {"name": "asker"})
    idle(None)
'''
VICTIM = '[[worker]]\nbgw_name = "victim"\nbgw_library_name = "tasks"\nbgw_function_name = "idle"\n'
NEW = {"bgw_name": "new", "bgw_library_name": "tasks", "bgw_function_name": "idle"}


def shared_host(make_host: MakeHost, *rights: str) -> RunningHost:
    """Start a host that gives these rights to a group."""
    head = f'[host]\nmax_worker_processes = 8\ncontrol_group = "{some_group().gr_name}"\ncontrol_allow = {json.dumps(rights)}\n'
    host = make_host(head + VICTIM, tasks=TASKS)
    host.start_and_wait()
    host.wait_for_worker("victim")
    return host


def outcomes(replies: list[dict[str, Any]]) -> list[str]:
    """Return "done" or the error's code for each reply behind the greeting."""
    return [reply["error"]["code"] if "error" in reply else "done" for reply in replies[1:]]


VIEWS: list[tuple[str, dict[str, Any]]] = [
    ("status", {}),
    ("find", {"name": "victim"}),
    ("wait", {"handle": "victim", "for": "startup"}),
    ("last_exit", {"handle": "0.1"}),
    ("events", {}),
]
OPERATIONS: list[tuple[str, dict[str, Any]]] = [
    ("signal", {"name": "victim", "signal": "WINCH"}),
    ("start", {"name": "victim"}),
    ("restart", {"name": "0.1"}),
    ("terminate", {"name": "0.1"}),
    ("reload", {}),
    ("plan", {}),
    ("upgrade", {}),
]
OWNERS: list[tuple[str, dict[str, Any]]] = [
    ("stop", {}),
    ("settings", {}),
    ("ready_done", {"plugin": "x"}),
    ("reexec", {}),
    ("no_such", {}),
]


@needs_root
def test_right_to_view(make_host: MakeHost) -> None:
    """A member with the right to view sees everything and changes nothing; membership may be supplementary."""
    host = shared_host(make_host, "view")
    gid = some_group().gr_gid
    requests = [("ping", {}), *VIEWS, *OPERATIONS, ("register", {"worker": NEW}), *OWNERS]
    allowed, refused = ["done"] * 6, ["permission_denied"] * 12
    assert outcomes(ask_as(host, *requests, groups=(gid,))) == [*allowed, *refused, "protocol"]
    assert outcomes(ask_as(host, *requests, groups=(*range(30000, 30400), gid))) == [*allowed, *refused, "protocol"]
    assert outcomes(ask_as(host, *requests, gid=gid)) == [*allowed, *refused, "protocol"]
    assert host.slot("victim")["state"] == "started"  # type: ignore[index]


@needs_root
def test_users_outside_the_group(make_host: MakeHost) -> None:
    """T49: who is no member does not even reach the socket, and members cannot read what they pass through."""
    host = shared_host(make_host, "view", "operate", "register")
    assert ask_as(host, ("ping", {}))[0]["error"]["code"] == "oserror"
    os.chmod(host.data_directory / "run" / "control.sock", 0o666)
    assert ask_as(host, ("ping", {}))[0]["error"]["code"] == "permission_denied"
    modes = {name: host.data_directory / name for name in (".", "run", "log")}
    gid = some_group().gr_gid
    assert modes["run"].stat().st_gid == gid
    assert [stat.S_IMODE(path.stat().st_mode) & 0o066 for path in modes.values()] == [0, 0, 0]
    assert stat.S_IMODE(modes["log"].stat().st_mode) == 0o700


@needs_root
def test_right_to_operate(make_host: MakeHost) -> None:
    """A member with the right to operate may view, and stop and restart workers, and not the host."""
    host = shared_host(make_host, "operate")
    replies = ask_as(host, *VIEWS, *OPERATIONS, ("register", {"worker": NEW}), *OWNERS[:3], groups=(some_group().gr_gid,))
    assert outcomes(replies) == ["done"] * 12 + ["permission_denied"] * 4


@needs_root
@pytest.mark.parametrize(
    ("right", "allowed"),
    [
        ("register", ["tasks:idle", "tasks:other", "os:system", "tasks:json.dumps"]),
        ("register:tasks", ["tasks:idle", "tasks:other"]),
        ("register:tasks:idle", ["tasks:idle"]),
    ],
)
def test_right_to_register(make_host: MakeHost, right: str, allowed: list[str]) -> None:
    """A member may register what the right names, has its own registrations in hand, and learns of no other."""
    host = shared_host(make_host, right)
    gid = some_group().gr_gid
    tried = ["tasks:idle", "tasks:other", "os:system", "tasks:json.dumps", "Tasks:idle"]
    tried = [each for each in tried if each in allowed or right != "register"]
    requests: list[tuple[str, dict[str, Any]]] = []
    for number, each in enumerate(tried):
        library, _, function = each.partition(":")
        worker = {"bgw_name": f"new {number}", "bgw_library_name": library, "bgw_function_name": function}
        requests.append(("register", {"worker": worker}))
    said = outcomes(ask_as(host, *requests, groups=(gid,)))
    assert [each for each, outcome in zip(tried, said, strict=True) if outcome == "done"] == allowed
    own: list[tuple[str, dict[str, Any]]] = [
        ("register", {"worker": {**NEW, "bgw_name": "mine"}}),
        ("wait", {"handle": "HANDLE", "for": "startup"}),
        ("find", {"name": "mine"}),
        ("signal", {"name": "mine", "signal": "WINCH"}),
        ("restart", {"name": "mine"}),
        ("terminate", {"name": "HANDLE"}),
        ("wait", {"handle": "HANDLE", "for": "shutdown"}),
        ("last_exit", {"handle": "HANDLE"}),
    ]
    assert outcomes(ask_as(host, *own, groups=(gid,))) == ["done"] * len(own)
    others = [*VIEWS, *OPERATIONS, ("find", {"name": "nobody"})]
    assert outcomes(ask_as(host, *others, groups=(gid,))) == ["permission_denied"] * len(others)
    assert host.slot("victim")["state"] == "started"  # type: ignore[index]


@needs_root
def test_group_without_rights(make_host: MakeHost) -> None:
    """Members of a group that is allowed nothing may connect, and learn that a host is there."""
    host = shared_host(make_host)
    requests = [("ping", {}), *VIEWS, *OPERATIONS, ("register", {"worker": NEW}), *OWNERS[:3]]
    said = outcomes(ask_as(host, *requests, groups=(some_group().gr_gid,)))
    assert said == ["done"] + ["permission_denied"] * (len(requests) - 1)


@needs_root
def test_members_cannot_shut_the_owner_out(make_host: MakeHost) -> None:
    """However many connections members hold, some are left for the owner."""
    host = shared_host(make_host, "view")
    crowd = (
        "import socket, sys\nheld = []\n"
        "for _ in range(300):\n    s = socket.socket(socket.AF_UNIX)\n    s.connect(sys.argv[1])\n    held.append(s)\n"
        "refused = sum(b'too many' in s.recv(4096) for s in held)\nprint(refused, flush=True)\nsys.stdin.read()\n"
    )
    path = str(host.data_directory / "run" / "control.sock")
    members = subprocess.Popen(
        [reachable_python(), "-c", crowd, path],
        user=NOBODY, group=some_group().gr_gid, extra_groups=[], cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert members.stdout is not None
    try:
        assert int(members.stdout.readline()) >= 300 - 224
        with socket.socket(socket.AF_UNIX) as owner:
            owner.settimeout(20)
            owner.connect(path)
            assert json.loads(owner.recv(4096))["bgworker"] == 1
    finally:
        members.communicate()


def test_unknown_group(make_host: MakeHost) -> None:
    """A control_group that does not exist is an error of one line, and no host starts."""
    host = make_host('[host]\ncontrol_group = "no such group"\ncontrol_allow = ["view"]\n')
    done = host.run_cli("run")
    assert done.returncode == 2
    assert '[host] control_group "no such group" does not exist' in done.stderr


def test_worker_acts_on_its_own_alone(make_host: MakeHost, tmp_path: Any) -> None:
    """A worker may stop itself and what it has registered; nobody else's worker, and not the host (CVE-2023-5870)."""
    path = tmp_path / "said"
    asker = f'[[worker]]\nbgw_name = "asker"\nbgw_library_name = "tasks"\nbgw_function_name = "asks"\nbgw_main_arg = "{path}"\n'
    host = make_host("[host]\nmax_worker_processes = 8\n" + VICTIM + asker, tasks=TASKS)
    host.start_and_wait()
    victim = host.wait_for_worker("victim")["pid"]
    host.wait_until(lambda: host.finished("asker"), "the asker has ended itself")
    said = json.loads(path.read_text())
    refused = {key for key, outcome in said.items() if "permission denied" in outcome}
    assert refused == {"other", "other again", "signal", "stop", "reload"}
    assert all(outcome == "done" for key, outcome in said.items() if key not in refused), said
    assert host.wait_for_worker("victim")["pid"] == victim
