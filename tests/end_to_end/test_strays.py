"""Strays: processes that a worker leaves behind in sessions of their own end with it; nobody else's process does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bgworker.testing import DEADLINE, RunningHost

MakeHost = Callable[..., RunningHost]

HEAD = "[host]\nmax_worker_processes = 8\nshutdown_timeout = 2.0\n"
TASKS = '''
"""Workers for the tests."""
import os, resource, time
from bgworker import worker

def daemons(arg):
    """Leave daemons of three generations, each in a session of its own, then wait as asked."""
    path, how = arg
    for _ in range(2):
        if os.fork() == 0:
            os.setsid()
            for _ in range(2):
                if os.fork() == 0:
                    os.setsid()
                    with open(path, "a") as file:
                        file.write(f"{os.getpid()}\\n")
                    os.closerange(0, 100)
                    if how == "lowers":
                        resource.setrlimit(10, (5, 5))
                    os.execve("/bin/sleep", ["sleep", f"100.{os.getppid()}"], {})
            if how == "tree":
                with open(path, "a") as file:
                    file.write(f"{os.getpid()}\\n")
                time.sleep(100)
            os._exit(0)
    while how == "returns":
        if os.path.exists(path) and len(open(path).read().split()) == 4:
            return
        time.sleep(0.01)
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass

def idle(arg):
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass
'''


def table(name: str, function: str, argument: str = '""') -> str:
    """Return a [[worker]] table."""
    return (
        f'[[worker]]\nbgw_name = "{name}"\nbgw_library_name = "tasks"\nbgw_function_name = "{function}"\n'
        f'bgw_main_arg = {argument}\nbgw_restart_time = "BGW_NEVER_RESTART"\n'
    )


def is_alive(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def daemons(host: RunningHost, path: Path, count: int) -> list[int]:
    """Wait until so many daemons have written their pids, and return these."""
    found = lambda: path.read_text().split() if path.exists() else []  # noqa: E731 - asked again and again
    host.wait_until(lambda: len(found()) == count, f"{count} daemons run")
    return [int(pid) for pid in found()]


@pytest.mark.parametrize(("how", "count"), [("waits", 4), ("tree", 6), ("lowers", 4)])
def test_daemons_of_a_worker_end_with_it(make_host: MakeHost, tmp_path: Path, how: str, count: int) -> None:
    """T08: what a worker left in other sessions, without descriptors or environment of ours, is killed when it ends."""
    path = tmp_path / "pids"
    host = make_host(HEAD + table("parent", "daemons", f'["{path}", "{how}"]') + table("other", "idle"), tasks=TASKS)
    host.start_and_wait()
    pids = daemons(host, path, count)
    other = host.wait_for_worker("other")["pid"]
    host.wait_for_worker("parent")
    assert all(map(is_alive, pids)), "they live as long as their worker"
    with host.client() as client:
        client.terminate("parent")
    host.wait_until(lambda: not any(map(is_alive, pids)), "the daemons are gone")
    assert host.slot("other")["pid"] == other  # type: ignore[index]
    assert "left behind by a background worker" in host.log()
    assert host.stop() == 0


def test_daemons_of_a_worker_that_returns_at_once(make_host: MakeHost, tmp_path: Path) -> None:
    """T08: a worker that ends by itself leaves nothing behind either."""
    path = tmp_path / "pids"
    host = make_host(HEAD + table("parent", "daemons", f'["{path}", "returns"]'), tasks=TASKS)
    host.start_and_wait()
    host.wait_until(lambda: host.finished("parent"), "the worker has returned")
    host.wait_until(lambda: not any(map(is_alive, map(int, path.read_text().split()))), "its daemons are gone")


def test_daemons_end_before_their_host_does(make_host: MakeHost, tmp_path: Path) -> None:
    """T08: a host that is shut down waits for the strays that it has killed."""
    path = tmp_path / "pids"
    host = make_host(HEAD + table("parent", "daemons", f'["{path}", "waits"]'), tasks=TASKS)
    host.start_and_wait()
    pids = daemons(host, path, 4)
    assert host.stop() == 0
    assert not any(map(is_alive, pids))


def test_children_that_no_worker_has_left_are_nobodys_strays(make_host: MakeHost) -> None:
    """T08: a process that the host has from the shell that became it is no stray, whatever dies."""
    host = make_host(HEAD + table("one", "idle"), tasks=TASKS)
    command = f'sleep 100 & echo $!; exec {sys.executable} -P -m bgworker run -c "{host.config_path}"'
    host.process = subprocess.Popen(
        ["/bin/sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=host.directory, start_new_session=True
    )
    assert host.process.stdout is not None
    stranger = int(host.process.stdout.readline())
    try:
        host.wait_for_state("run")
        first = host.wait_for_worker("one")["pid"]
        os.kill(first, signal.SIGKILL)
        host.wait_until(lambda: host.finished("one"), "the worker is gone")
        assert host.stop() == 0
        assert is_alive(stranger)
    finally:
        os.kill(stranger, signal.SIGKILL)
        host.process.stdout.close()


_FIRST_PROCESS = """
import os, subprocess, sys
# As the orphan of a docker exec: a process of the container that the host adopts.
if os.fork() == 0:
    if os.fork() == 0:
        os.execv("/bin/sleep", ["sleep", "101"])
    os._exit(0)
os.wait()
os.execv(sys.executable, [sys.executable, "-P", "-m", "bgworker", "run", "-c", sys.argv[1]])
"""


def _below(namespace: str, seconds: str) -> list[str]:
    """Return the sleepers of this pid namespace whose argument starts so."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            command = Path(f"/proc/{entry}/cmdline").read_bytes() if entry.isdigit() else b""
            if command.startswith(f"sleep\0{seconds}".encode()) and os.readlink(f"/proc/{entry}/ns/pid") == namespace:
                found.append(entry)
        except OSError:
            continue  # it has just ended
    return found


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs a pid namespace")
def test_host_as_process_1(make_host: MakeHost, tmp_path: Path) -> None:
    """T08: as process 1 of a container the host kills its workers' strays and reaps, but does not kill, the container's own."""
    path = tmp_path / "pids"
    host = make_host(HEAD + table("parent", "daemons", f'["{path}", "waits"]'), tasks=TASKS)
    inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", _FIRST_PROCESS]
    with host.output.open("ab") as output:
        host.process = subprocess.Popen(
            [*inside, str(host.config_path)], stdout=output, stderr=output, cwd=host.directory, start_new_session=True
        )
    try:
        daemons(host, path, 4)
        host.wait_for_state("run")
        namespace = os.readlink(f"/proc/{host.process.pid}/ns/pid_for_children")
        assert len(_below(namespace, "101")) == 1
        host.wait_until(lambda: len(_below(namespace, "100.")) == 4, "the daemons have become sleepers")
        with host.client() as client:
            client.terminate("parent")
        host.wait_until(lambda: not _below(namespace, "100."), "the strays are gone")
        assert len(_below(namespace, "101")) == 1
        with host.client() as client:
            client.stop()
        assert host.process.wait(timeout=DEADLINE) == 0
    finally:
        host.process.kill()  # and with it the namespace
        host.close()
