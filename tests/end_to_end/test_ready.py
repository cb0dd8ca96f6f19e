"""ready = "notify" under a real host: workers in Python, async ones, and programs that know sd_notify(3)."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable

from bgworker.testing import RunningHost

MakeHost = Callable[..., RunningHost]

HEAD = "[host]\nmax_worker_processes = 12\nshutdown_timeout = 2.0\n"
TASKS = '''
"""Workers for the tests."""
import asyncio, os, time
from bgworker import aio, worker

def slow(arg):
    worker.unblock_signals()
    while not os.path.exists(arg):
        time.sleep(0.01)
    worker.ready()
    worker.ready()
    for _ in worker.latch_loop():
        pass

async def in_loop(arg):
    aio.ready()
    await asyncio.sleep(3600)

def idle(arg):
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass
'''
PROGRAM = """
import os, socket, subprocess, sys, time
say = 'import os, socket; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"%s", os.environ["NOTIFY_SOCKET"]); %s'
children = [subprocess.Popen([sys.executable, "-c", say % ("STATUS=warming up", "import time; time.sleep(3600)")])]
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
children.append(subprocess.Popen([sys.executable, "-c", say % ("READY=1", "import time; time.sleep(3600)")]))
time.sleep(3600)
"""


def worker(name: str, function: str = "idle", **keys: str) -> str:
    """Return a [[worker]] table; values are TOML."""
    lines = [f'[[worker]]\nbgw_name = "{name}"']
    if "command" not in keys:
        lines += [f'bgw_library_name = "tasks"\nbgw_function_name = "{function}"']
    return "\n".join([*lines, *(f"{key} = {value}" for key, value in keys.items())]) + "\n"


def test_workers_that_say_when_they_are_ready(make_host: MakeHost) -> None:
    """Such a worker is shown as not ready until it says so, and what comes after it starts then; one that is late has failed."""
    host = make_host("", tasks=TASKS)
    gate = host.directory / "gate"
    host.config_path.write_text(
        HEAD
        + worker("slow", "slow", ready='"notify"', bgw_main_arg=json.dumps(str(gate)))
        + worker("late", ready='"notify"', start_timeout="3", bgw_restart_time="3600")
        + worker("loop", "in_loop", ready='"notify"')
        + worker("after slow", after='["slow:ready"]')
        + worker("after loop", after='["loop:ready"]')
    )
    host.start_and_wait()
    host.wait_for_worker("after loop")
    late = host.wait_for_worker("late", "waiting_restart")
    assert late["reason"] == "failed to start: it was not ready within 3 s; restarts after 3600 s, try 2"
    slow = host.wait_for_worker("slow")
    assert (slow["reason"], slow["config"]["ready"]) == ("started, not ready yet", "notify")
    assert host.slot("after slow")["state"] == "not_yet_started"  # type: ignore[index]
    assert "Started, not ready yet." in host.run_cli("why", "after slow").stdout.replace("started, not", "Started, not")
    assert host.run_cli("wait", "--startup", "slow").returncode == 0
    gate.touch()
    host.wait_for_worker("after slow")
    assert host.slot("slow")["reason"] == ""  # type: ignore[index]
    assert "late" in host.run_cli("status", "--failed").stdout


def test_programs_that_say_when_they_are_ready(make_host: MakeHost) -> None:
    """A command says READY and STATUS over NOTIFY_SOCKET, by itself or by a child; nobody else is listened to."""
    host = make_host("", tasks=TASKS)
    gate = host.directory / "gate"
    program = json.dumps([sys.executable, "-c", PROGRAM, str(gate)])
    host.config_path.write_text(
        HEAD
        + worker("server", command=program, ready='"notify"')
        + worker("other", command=program)
        + worker("after", after='["server:ready"]')
    )
    host.start_and_wait()
    server = host.wait_for_worker("server")
    host.wait_until(lambda: (host.slot("server") or {})["activity"]["text"] == "warming up", "STATUS is shown")
    path = host.data_directory / "run" / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"READY=1", str(path))
        stranger.sendto(b"READY=1" + b"\0" * 10_000, str(path))
    host.run_cli("status")
    assert host.slot("server")["reason"] == "started, not ready yet"  # type: ignore[index]
    gate.touch()
    host.wait_for_worker("after")
    assert host.slot("server")["reason"] == ""  # type: ignore[index]
    assert "NOTIFY_SOCKET" in host.log("other"), "only who is to say so is told where"
    os.kill(server["pid"], signal.SIGKILL)
    host.wait_until(lambda: (host.slot("server") or {})["restarts"] > 0, "it is started again")
    assert host.stop() == 0
    assert not path.exists()
