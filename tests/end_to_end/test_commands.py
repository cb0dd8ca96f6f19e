"""``command``: any program as a worker - what it finds, how it starts, ends and fails, and that it is not outlived."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bgworker import BackgroundWorker
from bgworker.testing import RunningHost
from tests.end_to_end.other_user import NOBODY, environment_for_others, needs_root, reachable_python

MakeHost = Callable[..., RunningHost]
HEAD = "[host]\nmax_worker_processes = 8\n"

#: Leaves behind in the loader what no program may find: descriptors, ignored signals, an alarm.
SPOILS = """
import os, signal
os.set_inheritable(os.open("/etc/passwd", os.O_RDONLY), True)
os.dup2(os.open("/etc/passwd", os.O_RDONLY), 900)
for signum in (signal.SIGUSR2, signal.SIGHUP, signal.SIGRTMIN + 3):
    signal.signal(signum, signal.SIG_IGN)
"""

#: Says what the shell itself was executed with; it changes neither dispositions nor descriptors.
FACTS = """
grep -E '^(NoNewPrivs|Uid)' /proc/$$/status
ls -l /proc/$$/fd
read -r pid name state parent group session terminal rest < /proc/$$/stat
echo "SESSION $((session == $$)) $((group == $$)) $terminal"
echo "ARGUMENTS $0 $# $1 $2 $3"
echo "PLACE $PWD $(umask) $TOKEN $(ulimit -n)"
echo "to stderr" >&2
echo READY
"""


def command(name: str, *words: str, keys: str = "") -> str:
    """Return a [[worker]] with a command."""
    return f'[[worker]]\nbgw_name = "{name}"\ncommand = {json.dumps(words)}\n{keys}\n'


def shell(name: str, script: str, *arguments: str, keys: str = "") -> str:
    """Return a [[worker]] that is a shell with a script."""
    return command(name, "/bin/sh", "-c", script, *arguments, keys=keys)


def log_of(host: RunningHost, name: str, word: str) -> str:
    """Return the log of a worker once it holds a word."""
    return host.wait_until(lambda: log if word in (log := host.log(name)) else "", f"{name} has said {word}")


def descriptors(log: str) -> dict[str, str]:
    """Return the open descriptors that FACTS has told."""
    return {left.split()[-1]: target for line in log.splitlines() for left, arrow, target in [line.partition(" -> ")] if arrow}


def test_what_a_program_finds(make_host: MakeHost) -> None:
    """A program finds what any supervisor would give it, and nothing of the host's or of a plugin's."""
    keys = 'environment = { TOKEN = "s3cret" }\nworking_directory = "var"\numask = "027"\nrlimits = { nofile = 777 }'
    host = make_host(
        '[host]\nmax_worker_processes = 8\nshared_preload_libraries = ["spoils"]\n'
        + shell("program", FACTS + "exec sleep 1000", "zero", "a b", "$HOME", "*", keys=keys)
        + command("signals", "/bin/cat", "/proc/self/status"),
        spoils=SPOILS,
    )
    (host.directory / "var").mkdir()
    checked = host.run_cli("check")
    assert checked.returncode == 0, checked.stderr
    assert "\nprogram  /bin/sh -c " in checked.stdout
    host.start_and_wait()
    slot = host.wait_for_worker("program")
    log = log_of(host, "program", "READY")
    facts = [line.partition("program: ")[2] for line in log.splitlines()]
    # Of a program that does nothing about signals; a shell blocks them for moments.
    status = dict(line.split(":\t", 1) for line in log_of(host, "signals", "SigCgt").splitlines() if ":\t" in line)
    status = {key.rpartition(" ")[2]: value for key, value in status.items()}
    # 32 and 33 are the C library's own: its posix_spawn() leaves them ignored.
    own = ~(0b11 << 31)
    assert [int(status[key], 16) & own for key in ("SigBlk", "SigIgn", "SigPnd")] == [0, 0, 0]
    fds = descriptors(log)
    assert sorted(fds) == ["0", "1", "2"]
    assert fds["0"] == "/dev/null"
    assert fds["1"].startswith("pipe:")
    assert fds["2"].startswith("pipe:")
    assert "SESSION 1 1 0" in facts
    assert "ARGUMENTS zero 3 a b $HOME *" in facts
    assert f"PLACE {host.directory}/var 0027 s3cret 777" in facts
    assert "to stderr" in facts
    # It is the program now, under its own name, in the process that the host has known all along.
    host.wait_until(lambda: Path(f"/proc/{slot['pid']}/cmdline").read_bytes() == b"sleep\x001000\x00", "the shell is gone")
    assert slot["config"]["command"][:2] == ["/bin/sh", "-c"]
    assert (slot["bgw_library_name"], slot["bgw_function_name"]) == ("bgworker", "command_main")
    limits = Path(f"/proc/{slot['pid']}/limits").read_text()
    assert "unlimited" not in next(line for line in limits.splitlines() if line.startswith("Max file locks"))


def test_stop_restart_reload(make_host: MakeHost) -> None:
    """C35: SIGTERM ends a program at once, SIGKILL a deaf one; a reload does not touch it, for SIGHUP would kill it."""
    polite = "trap 'echo bye; exit 0' TERM; echo READY; while :; do sleep 1000 & wait; done"
    host = make_host(
        HEAD
        + command("plain", "sleep", "1000")
        + shell("polite", polite)
        + shell("deaf", "trap '' TERM; echo READY; while :; do sleep 1000; done", keys="stop_timeout = 0.3")
    )
    host.start_and_wait()
    before = {name: host.wait_for_worker(name)["pid"] for name in ("plain", "polite", "deaf")}
    for name in ("polite", "deaf"):
        log_of(host, name, "READY")
    with host.config_path.open("a") as file:
        file.write("[settings.x]\ny = 1\n" + shell("late", "echo HOME=$HOME; exec sleep 1000"))
    reload = host.run_cli("reload", "--json")
    assert reload.returncode == 0, reload.stderr
    host.wait_for_worker("late")
    assert {name: host.wait_for_worker(name)["pid"] for name in before} == before
    for name in before:
        assert host.run_cli("restart", name).returncode == 0
        host.wait_until(lambda n=name: host.wait_for_worker(n)["pid"] != before[n], f"{name} was restarted")  # type: ignore[misc]
    assert "bye" in log_of(host, "polite", "bye")
    after = {name: host.slot(name)["last_exit"] for name in before}  # type: ignore[index]
    assert [(after[name]["code"], after[name]["signal"]) for name in before] == [(None, 15), (0, None), (None, 9)]
    # A changed command is a changed registration.
    host.config_path.write_text(host.config_path.read_text().replace('"1000"', '"1001"'))
    assert host.run_cli("reload").returncode == 0
    host.wait_until(lambda: host.wait_for_worker("plain")["config"]["command"] == ["sleep", "1001"], "it has the new command")
    assert host.run_cli("terminate", "plain", "--wait").returncode == 0
    assert host.slot("plain") is None
    assert "was terminated by signal 1:" not in host.log()


def test_exits(make_host: MakeHost) -> None:
    """C29: a program that is over before anybody looks has started all the same, and its exit code is that of any worker."""
    host = make_host(
        HEAD
        + shell("done", "echo OVER; exit 0", keys='restart_on = "crash"')
        + shell("again", "echo OVER; exit 0", keys="bgw_restart_time = 0.1")
        + shell("failing", "echo OVER; exit 1", keys="bgw_restart_time = 3600")
        + shell("never", "exit 5", keys='bgw_restart_time = "BGW_NEVER_RESTART"')
    )
    host.start_and_wait()
    finished = host.wait_until(lambda: host.finished("done"), "it has ended")
    assert finished is not None
    assert finished["reason"] == "exit 0"
    waiting = host.wait_for_worker("failing", "waiting_restart")
    assert waiting["last_exit"]["reason"] == "exit 1"
    assert (waiting["restart_at"] is not None, waiting["restarts"]) == (True, 0)
    never = host.wait_until(lambda: host.finished("never"), "it has ended")
    assert never is not None
    assert "exit 5" in never["reason"]
    assert host.log("done").count("OVER") == 1
    host.wait_until(lambda: host.log("again").count("OVER") > 2, "the one that is kept up has been started again")


def test_program_that_cannot_be_executed(make_host: MakeHost) -> None:
    """C10: what keeps a program from being executed is a failed start, in words; check sees what can be seen; it is tried again."""
    host = make_host(
        HEAD
        + command("missing", "no-such-program", keys="bgw_restart_time = 0.5")
        + command("no-right", "./no-right", keys='working_directory = "."')
        + command("no-magic", "./no-magic", keys='working_directory = "."')
        + command("no-interpreter", "./no-interpreter", keys='working_directory = "."')
        + command("later", "later", keys="bgw_restart_time = 0.2\nenvironment = { PATH = '/no/where:/tmp/no/../later' }")
    )
    host.config_path.write_text(host.config_path.read_text().replace("/tmp/no/../later", str(host.directory / "bin")))
    for name, text, mode in (
        ("no-right", "#!/bin/sh\n", 0o644),
        ("no-magic", "echo\n", 0o755),
        ("no-interpreter", "#!/no/such/interpreter\n", 0o755),
    ):
        (host.directory / name).write_text(text)
        (host.directory / name).chmod(mode)
    expected = {
        "missing": 'there is no program "no-such-program" on PATH',
        "no-right": 'program "./no-right" is not executable',
        "no-magic": 'could not execute "./no-magic": Exec format error',
        "no-interpreter": 'could not execute "./no-interpreter": No such file or directory',
        "later": 'there is no program "later" on PATH',
    }
    checked = host.run_cli("check")
    assert checked.returncode == 1
    for name in ("missing", "no-right", "later"):
        assert f'background worker "{name}" would fail to start: {expected[name]}' in checked.stderr
    host.start_and_wait()
    for name, reason in expected.items():
        host.wait_until(lambda n=name, r=reason: f"failed to start: {r}" in (host.slot(n) or {})["reason"], reason)  # type: ignore[misc]
        # The host knows of it before the collector has written the worker's lines.
        host.wait_until(lambda n=name, r=reason: f"FATAL:  {r}" in host.log(n), f"the log of {name}")  # type: ignore[misc]
    host.wait_until(lambda: "HINT:  A script needs a first line" in host.log("no-magic"), "the hint")
    host.wait_until(lambda: host.log("missing").count("FATAL") > 1, "it has been tried again")
    (host.directory / "bin").mkdir()
    (host.directory / "bin" / "later").symlink_to("/bin/sleep")
    # Without an argument sleep ends with code 1, which is a start: the program ran.
    host.wait_until(lambda: ((host.slot("later") or {})["last_exit"] or {}).get("reason") == "exit 1", "it has run")


def test_nothing_outlives_the_host(make_host: MakeHost) -> None:
    """C24: a program dies with its host, however that ends; what it has left in other sessions dies with the program."""
    leaves = "setsid sleep 1000 & echo PID $! READY; exec sleep 1000"
    host = make_host(
        HEAD + shell("leaves", leaves) + shell("deaf", "trap '' TERM HUP INT; echo READY; while :; do sleep 1000; done")
    )
    host.start_and_wait()
    stray = int(log_of(host, "leaves", "READY").partition("PID ")[2].split()[0])
    assert host.run_cli("terminate", "leaves", "--wait").returncode == 0
    host.wait_until(lambda: not os.path.exists(f"/proc/{stray}"), "the daemon has ended")
    log_of(host, "deaf", "READY")
    pid = host.wait_for_worker("deaf")["pid"]
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    host.stop(signal.SIGKILL)
    host.process = None
    try:
        host.wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the program has ended", timeout=10)
        # No lock of the dead host is held by what its programs may have left: the next one starts.
        host.start_and_wait()
    finally:
        for left in children:  # its child is nobody's: the next host says so in the documentation, not here
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(left), signal.SIGKILL)


def test_registered_by_client_and_worker(make_host: MakeHost) -> None:
    """C03: a program can be registered like a function, by a client and by a worker; its handle tells start and end."""
    registers = """
from bgworker import BackgroundWorker, worker
def registers(arg):
    handle = worker.register_dynamic_background_worker(BackgroundWorker(bgw_name="child", command=("sleep", "1000")))
    print("CHILD", handle.wait_for_startup(30)[0].name, flush=True)
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass
"""
    host = make_host(
        HEAD + '[[worker]]\nbgw_name = "parent"\nbgw_library_name = "registers"\nbgw_function_name = "registers"\n',
        registers=registers,
    )
    host.start_and_wait()
    assert "CHILD STARTED" in log_of(host, "parent", "CHILD")
    with host.client() as client:
        handle = client.register_dynamic_background_worker(BackgroundWorker(bgw_name="job", command=("/bin/sh", "-c", "exit 0")))
        handle.wait_for_shutdown(30)
        last_exit = handle.last_exit()
        assert last_exit is not None
        assert (last_exit.code, last_exit.reason) == (0, "exit 0")


@needs_root
def test_as_another_user(make_host: MakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of another user needs nothing of ours: it starts with an interpreter that is closed to that user."""
    closed = Path(tempfile.mkdtemp())  # of mode 0700
    pid = 0
    try:
        (closed / "python").symlink_to(reachable_python())
        monkeypatch.setattr(sys, "executable", str(closed / "python"))
        monkeypatch.setenv("PYTHONPATH", environment_for_others()["PYTHONPATH"])
        host = make_host(HEAD + shell("other", FACTS + "exec sleep 1000", keys=f'user = "{NOBODY}"\nstop_timeout = 1.0'))
        host.start_and_wait()
        log = log_of(host, "other", "READY")
        assert f"Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}" in log
        assert "NoNewPrivs:\t1" in log
        assert sorted(descriptors(log)) == ["0", "1", "2"]
        pid = host.wait_for_worker("other")["pid"]
        host.stop(signal.SIGKILL)
        host.process = None
        host.wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the program has ended", timeout=10)
    finally:
        shutil.rmtree(closed)
        if pid and os.path.exists(f"/proc/{pid}"):
            os.kill(pid, signal.SIGKILL)
