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
    assert host.finished("web-3") is None, "it was scaled away, and is back"
    assert host.slot("web-1")["pid"] == first  # type: ignore[index]
    assert "scaled" not in host.run_cli("plan").stdout


def test_the_name_that_instances_share(make_host: MakeHost) -> None:
    """C29: a command on it acts on each of them; start brings back those that an operator terminated."""
    host = make_host(HEAD + workers(3), tasks=TASKS)
    host.start_and_wait()
    for name in ("web-1", "web-2", "web-3"):
        host.wait_for_worker(name)
    pids = {name: host.slot(name)["pid"] for name in ("web-1", "web-2", "web-3", "program-1")}  # type: ignore[index]
    done = json.loads(host.run_cli("restart", "web", "--json").stdout)
    assert [each["name"] for each in done] == ["web-1", "web-2", "web-3"]
    host.wait_until(
        lambda: all((host.slot(name) or {}).get("pid") not in (None, pids[name]) for name in ("web-1", "web-2", "web-3")),
        "each has another process",
    )
    assert host.slot("program-1")["pid"] == pids["program-1"]  # type: ignore[index]
    why = host.run_cli("why", "web")
    assert why.returncode == 1
    assert 'ERROR:  background worker "web" has 3 instances\nDETAIL:  They are web-1 (' in why.stderr

    assert host.run_cli("terminate", "web-2", "--wait").returncode == 0
    listed = host.run_cli("status", "web")
    assert listed.returncode == 0
    assert [name for name in ("web-1", "web-2", "web-3", "after") if name in listed.stdout] == ["web-1", "web-2", "web-3"]
    signalled = host.run_cli("signal", "web")
    assert signalled.returncode == 1
    assert len(signalled.stdout.splitlines()) == 2
    assert 'background worker "web-2" is finished' in signalled.stderr
    assert host.run_cli("terminate", "web", "--wait").returncode == 1
    assert host.slot("web-1") is None
    started = host.run_cli("start", "web")
    assert (started.returncode, len(started.stdout.splitlines()), started.stderr) == (0, 3, "")
    for name in ("web-1", "web-2", "web-3"):
        host.wait_for_worker(name)
    upgraded = host.run_cli("upgrade", "web", "--canary", "3", "--settle", "0")
    assert (upgraded.returncode, upgraded.stdout.splitlines()[-1]) == (0, "3 workers upgraded")


def test_an_instance_that_was_scaled_away(make_host: MakeHost) -> None:
    """C29: its name alone does not bring it back, and everybody who tells of it says what does."""
    host = make_host(HEAD + workers(2), tasks=TASKS)
    host.start_and_wait()
    assert host.run_cli("scale", "web", "4").returncode == 0
    for name in ("web-3", "web-4"):
        host.wait_for_worker(name)
    assert host.run_cli("terminate", "--wait", "web-4").returncode == 0
    assert host.run_cli("scale", "web", "2").returncode == 0
    host.wait_until(lambda: host.finished("web-3"), "it is gone")
    for name in ("web-3", "web-4"):
        over = host.finished(name)
        assert over is not None
        assert over["reason"].startswith("scaled away")
        assert over["reason"].endswith(f'; comes back when "web" is scaled to {name[-1]} or more')
        refused = host.run_cli("start", name)
        assert refused.returncode == 1
        assert f'ERROR:  background worker "{name}" is finished\nDETAIL:  Scaled away' in refused.stderr
        assert f"HINT:  Bring it back with: bgworker scale web {name[-1]}. How" in refused.stderr
        assert f"Bring it back: bgworker scale web {name[-1]}\n" in host.run_cli("why", name).stdout
    assert "scaled away" in host.run_cli("status", "--all").stdout
    assert "scaled away" not in host.run_cli("status", "web").stdout
    assert host.run_cli("status", "--check").returncode == 0
    assert host.run_cli("start", "web").stdout.count("already running") == 2
    assert host.run_cli("scale", "web", "3").returncode == 0
    host.wait_for_worker("web-3")
    assert host.finished("web-3") is None
