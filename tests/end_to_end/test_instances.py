"""Several instances of a worker under a real host: their names, their numbers, and what a reload does to them."""

from __future__ import annotations

import json
from collections.abc import Callable

from bgworker.testing import RunningHost

MakeHost = Callable[..., RunningHost]

HEAD = "[host]\nmax_worker_processes = 12\nshutdown_timeout = 2.0\n"
TASKS = '''
"""A worker for the tests."""
from bgworker import worker

def numbered(arg):
    worker.unblock_signals()
    entry = worker.my_bgworker_entry()
    worker.report_activity("idle", f"{entry.instance} of {entry.instance_of}")
    for _ in worker.latch_loop():
        pass
'''


def workers(count: int) -> str:
    """Return the tables: instances of a function and of a program, and a worker after all of them."""
    names = 'bgw_library_name = "tasks"\nbgw_function_name = "numbered"\n'
    return (
        f'[[worker]]\nbgw_name = "web"\n{names}instances = {count}\n'
        f'[[worker]]\nbgw_name = "after"\n{names}after = ["web", "program-2:ready"]\n'
        '[[worker]]\nbgw_name = "program"\ninstances = 2\n'
        'command = ["/bin/sh", "-c", "echo number $BGWORKER_INSTANCE; exec sleep 3600"]\n'
    )


def test_instances(make_host: MakeHost) -> None:
    """Each knows its number and answers to its name; a reload with another number touches only the difference."""
    host = make_host(HEAD + workers(2), tasks=TASKS)
    host.start_and_wait()
    host.wait_for_worker("after")
    pids = {name: host.wait_for_worker(name)["pid"] for name in ("web-1", "web-2", "program-1", "program-2", "after")}
    host.wait_until(lambda: (host.slot("web-2") or {})["activity"]["text"] == "2 of web", "it knows its number")
    assert host.slot("web-2")["bgw_type"] == "web"  # type: ignore[index]
    assert host.slot("web-2")["config"]["instance"] == 2  # type: ignore[index]
    host.wait_until(lambda: "number 2" in host.log("program-2"), "a program finds it in its environment")

    host.config_path.write_text(HEAD + workers(3))
    assert host.run_cli("reload").returncode == 0
    host.wait_for_worker("web-3")
    assert {name: host.slot(name)["pid"] for name in pids} == pids  # type: ignore[index]
    host.config_path.write_text(HEAD + workers(1))
    plan = host.run_cli("plan").stdout
    assert [line.split()[:2] for line in plan.splitlines() if line.startswith("stop")] == [["stop", "web-2"], ["stop", "web-3"]]
    assert host.run_cli("reload").returncode == 0
    host.wait_until(lambda: host.slot("web-2") is None and host.slot("web-3") is None, "two are gone")
    assert host.slot("web-1")["pid"] == pids["web-1"]  # type: ignore[index]

    assert host.run_cli("terminate", "--wait", "web-1").returncode == 0
    assert "until it is started by name" in host.run_cli("why", "web-1").stdout
    assert host.run_cli("start", "web-1").returncode == 0
    host.wait_for_worker("web-1")


def test_scale(make_host: MakeHost) -> None:
    """Scale touches the difference alone; a reload keeps the number and says so, until the file has another one."""
    host = make_host(HEAD + workers(2), tasks=TASKS)
    host.start_and_wait()
    first = host.wait_for_worker("web-1")["pid"]
    scaled = host.run_cli("scale", "web", "4")
    assert scaled.stdout.splitlines() == ["starting web-3", "starting web-4"]
    host.wait_for_worker("web-4")
    host.wait_until(lambda: (host.slot("web-4") or {})["activity"]["text"] == "4 of web", "it knows its number")
    assert "it was scaled and keeps 4 instances; the file says 2" in host.run_cli("plan").stdout
    assert host.run_cli("plan").returncode == 0
    assert host.run_cli("reload").returncode == 0
    assert host.slot("web-4")["state"] == "started"  # type: ignore[index]

    full = host.run_cli("scale", "web", "99")
    assert full.returncode == 5
    assert 'could not scale "web" to 99: 95 slots are needed, and 5 are free' in full.stderr
    assert "The slots are held by web (4, tasks), " in full.stderr
    assert host.slot("web-5") is None
    for wrong in ("0", "-1", "many", "1001"):
        assert host.run_cli("scale", "web", wrong).returncode == 2
    assert 'there are no instances of "after"' in host.run_cli("scale", "after", "2").stderr
    assert host.run_cli("scale", "web", "4").stdout == "there are 4 already\n"

    fewer = json.loads(host.run_cli("scale", "web", "1", "--json").stdout)
    assert fewer == {"started": [], "stopped": ["web-4", "web-3", "web-2"]}
    host.wait_until(lambda: host.slot("web-2") is None, "it is gone")
    assert host.run_cli("reload").returncode == 0
    assert host.slot("web-2") is None
    host.config_path.write_text(HEAD + workers(3))
    assert host.run_cli("reload").returncode == 0
    host.wait_for_worker("web-3")
    assert host.slot("web-1")["pid"] == first  # type: ignore[index]
    assert "scaled" not in host.run_cli("plan").stdout
