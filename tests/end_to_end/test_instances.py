"""Several instances of a worker under a real host: their names, their numbers, and what a reload does to them."""

from __future__ import annotations

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
