"""Faults by their numbers in docs/reliability.md that need privileges or minutes: namespaces, full file systems, limits."""

from __future__ import annotations

import os
import pwd
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bgworker import BackgroundWorker
from bgworker.testing import DEADLINE, RunningHost, processes_below

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount, unshare and change ids")]

MakeHost = Callable[..., RunningHost]
AS_PLAIN_USER = Path(__file__).parents[1] / "integration" / "database" / "as_plain_user.py"
HEAD = '[host]\nmax_worker_processes = 8\nshutdown_timeout = 1.0\nshared_preload_libraries = ["tasks"]\n'
TASKS = '''
"""Workers for the tests."""
import os, time
from bgworker import worker

def idle(arg):
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass

def daemon(path):
    "Leave a daemon behind, which holds the canary open."
    canary = os.open(path, os.O_WRONLY)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
    os.close(canary)
    os.wait()
    idle(None)

def bomb(arg):
    "Fork until the kernel says no, again and again."
    worker.unblock_signals()
    refused = 0
    while refused < 20:
        try:
            if os.fork() == 0:
                time.sleep(600)
                os._exit(0)
        except OSError:
            refused += 1
    worker.report_activity("idle", "refused")
    for _ in worker.latch_loop():
        pass
'''


def table(name: str, function: str, *more: str) -> str:
    """Return a [[worker]] table."""
    lines = ["[[worker]]", f'bgw_name = "{name}"', 'bgw_library_name = "tasks"', f'bgw_function_name = "{function}"', *more]
    return "\n".join(lines) + "\n"


def start(host: RunningHost, *before: str) -> None:
    """Start a host by way of other programs, each of which executes the next."""
    with host.output.open("ab") as output:
        host.process = subprocess.Popen(
            [*before, sys.executable, "-P", "-m", "bgworker", "run", "-c", str(host.config_path)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=host.directory, start_new_session=True,
        )  # fmt: skip


def test_nothing_leaves_a_pid_namespace(make_host: MakeHost, tmp_path: Path) -> None:
    """T08: in a pid namespace of its own even a worker's daemon dies with a host that is killed: the canary says end of file."""
    path = tmp_path / "canary"
    os.mkfifo(path)
    canary = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        host = make_host(HEAD + table("parent", "daemon", f'bgw_main_arg = "{path}"'), tasks=TASKS)
        start(host, "unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
        assert host.process is not None
        host.wait_for_worker("parent")
        assert not select.select([canary], [], [], 0)[0], "the daemon holds it"
        host.process.kill()
        host.process.wait()
        assert select.select([canary], [], [], DEADLINE)[0]
        assert os.read(canary, 1) == b"", "end of file"
    finally:
        os.close(canary)


@pytest.mark.parametrize(
    ("size", "inodes", "fill", "code"),
    [
        ("64k", "8", "i=0; while touch $1/file$i; do i=$((i+1)); done", 2),
        # One too few for all that a start makes: the socket is the last of it.
        ("64k", "8", "true", 2),
        ("16k", "4k", "dd if=/dev/zero of=$1/file bs=4k", 0),
    ],
    ids=["no inode", "no inode for the socket", "no block"],
)
def test_start_on_a_full_file_system(make_host: MakeHost, size: str, inodes: str, fill: str, code: int) -> None:
    """T24: where a name cannot be made, the start says so in one error and leaves no socket; where names can, it runs."""
    host = make_host("placeholder")
    place = host.directory / "place"
    place.mkdir()
    host.config_path.write_text(f'[host]\nmax_worker_processes = 2\ndata_directory = "{place}/data"\n')
    script = (
        f"mount -t tmpfs -o size={size},nr_inodes={inodes} none $1 && {{ {fill}; }} 2>/dev/null; shift;"
        ' "$@"; code=$?; ls -AR ' + str(place) + "; exit $code"
    )
    command = [sys.executable, "-P", "-m", "bgworker", "run", "--log", "both", "-c", str(host.config_path)]
    # SIGTERM for one that runs: a file system without blocks still takes names, and a start writes nothing else.
    ended = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", str(place), "timeout", "--preserve-status", "-s", "TERM", "8", *command],
        capture_output=True, text=True, timeout=DEADLINE, cwd=host.directory, check=False,
    )  # fmt: skip
    said = ended.stdout + ended.stderr
    assert "Traceback" not in said
    assert ended.returncode == code, said
    if code:
        assert said.count("ERROR:") == 1, said
        assert "No space left on device" in said
    else:
        assert "host is shut down" in said
    # What ls has listed.
    assert "control.sock" not in ended.stdout.partition(str(place))[2] or not code, said


NAMESAKE = """
import os, signal, subprocess, sys, time
import bgworker
from bgworker.testing import RunningHost
from pathlib import Path

host = RunningHost(Path(sys.argv[1]), Path(sys.argv[1], "workers.toml").read_text())
host.start_and_wait()
with host.client() as client:
    worker = bgworker.BackgroundWorker(bgw_name="w", bgw_library_name="tasks", bgw_function_name="idle")
    handle = client.register_dynamic_background_worker(worker)
    pid = handle.wait_for_startup(60).pid
    os.kill(pid, signal.SIGKILL)
    handle.wait_for_shutdown(60)
    for _ in range(1000):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
        stranger = subprocess.Popen(["sleep", "600"])
        if stranger.pid == pid:
            break
        stranger.kill()
        stranger.wait()
    assert stranger.pid == pid, "the pid was not given again"
    handle.terminate()
    client.terminate(str(handle))
    try:
        client.terminate("w")
    except bgworker.errors.HostError:
        pass
    assert handle.get_pid() == (bgworker.BgwHandleStatus.STOPPED, None), handle.get_pid()
    client.ping()
assert host.stop() == 0
assert stranger.poll() is None, "the stranger got a signal"
stranger.kill()
stranger.wait()
print("the stranger lives")
"""


def test_pid_that_is_given_again(make_host: MakeHost) -> None:
    """C34, T28: a stranger with the pid of a worker that has gone gets no signal by its handle, its name or the shutdown."""
    host = make_host(HEAD, tasks=TASKS)
    inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", NAMESAKE, str(host.directory)]
    ended = subprocess.run(inside, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "the stranger lives" in ended.stdout


def test_fork_bomb_at_the_process_limit(make_host: MakeHost) -> None:
    """T17, T58: a worker that forks until the user's limit is reached harms its host in nothing, and goes with all its children."""
    host = make_host(HEAD + table("bomb", "bomb") + table("idle", "idle"), tasks=TASKS)
    # The limit counts all processes of a user, wherever they are; root's are not counted.
    user = pwd.getpwnam("nobody")
    for path in (host.directory, *host.directory.iterdir()):
        os.chown(path, user.pw_uid, user.pw_gid)
    start(host, sys.executable, str(AS_PLAIN_USER), "nobody", "/usr/bin/prlimit", "--nproc=60")
    host.wait_for_state("run")
    idle = host.wait_for_worker("idle")
    host.wait_until(lambda: (host.slot("bomb") or {})["activity"]["text"] == "refused", "it cannot fork any more")
    with host.client() as client:
        # Nobody can be born now: a failed start that is tried again.
        worker = BackgroundWorker(bgw_name="late", bgw_library_name="tasks", bgw_function_name="idle", bgw_restart_time=0.2)
        handle = client.register_dynamic_background_worker(worker)
        host.wait_until(lambda: "temporarily unavailable" in (host.slot("late") or {}).get("reason", ""), "it says why it waits")
        client.terminate("bomb")
        host.wait_until(lambda: (host.slot("late") or {})["state"] == "started", "it is born once there is room")
        assert handle.get_pid().pid
        assert (host.slot("idle") or {})["pid"] == idle["pid"]
    assert host.stop() == 0
    assert not processes_below(str(host.directory))
