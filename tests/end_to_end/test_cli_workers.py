"""The verbs that act on workers and on the host, against a real one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from bgworker.testing import RunningHost

MakeHost = Callable[..., RunningHost]

TASKS = '''
"""Workers for the tests."""
import os, sys
from bgworker import worker

def idle(arg):
    worker.unblock_signals()
    for _ in worker.latch_loop(wait_event="IdleMain"):
        worker.report_activity("idle", "")

def leave(arg):
    print("left with", arg)
    sys.exit(arg)

def fail(arg):
    sys.exit("connection refused")

def show(arg):
    print(f"{arg!r} in {worker.my_bgworker_entry().bgw_name}")
'''

CONFIG = """
[host]
max_worker_processes = 4
shutdown_timeout = 2.0
[[worker]]
bgw_name = "keeper"
bgw_library_name = "tasks"
bgw_function_name = "idle"
"""


@pytest.fixture
def shop(make_host: MakeHost) -> RunningHost:
    """A running host with one static worker that idles, and three free slots."""
    host = make_host(CONFIG, tasks=TASKS)
    host.start_and_wait()
    host.wait_for_worker("keeper")
    return host


@contextmanager
def follow(host: RunningHost, *names: str) -> Iterator[subprocess.Popen[str]]:
    """Run `logs -f`; it ends by Ctrl-C at the end."""
    with subprocess.Popen(
        [sys.executable, "-m", "bgworker", "logs", "-f", "-c", str(host.config_path), *names],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=host.directory,
    ) as process:
        guard = threading.Timer(60, process.kill)
        guard.start()
        try:
            yield process
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
        finally:
            guard.cancel()
            process.kill()


def test_register_wait_and_its_end(shop: RunningHost) -> None:
    """C33, C36, C37: registered and started; the job's exit code is what `wait --shutdown` says, before and after its end."""
    result = shop.run_cli("register", "tasks:idle", "--name", "job", "--wait", "--json")
    assert result.returncode == 0, result.stderr
    job = json.loads(result.stdout)
    assert job["status"] == "STARTED"
    assert shop.run_cli("wait", "job", "--timeout", "30").stdout == f"started job ({job['handle']}, PID {job['pid']})\n"
    assert shop.run_cli("wait", job["handle"], "--shutdown", "--timeout", "0").returncode == 4
    assert shop.run_cli("terminate", "job", "--wait").stdout == f"terminated job ({job['handle']})\n"
    ended = shop.run_cli("wait", "job", "--shutdown")
    assert ended.returncode == 1
    assert ended.stdout.startswith(f"stopped job ({job['handle']}): terminated by an operator")


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (1, 1), (3, 1)])
def test_a_job_that_ends_by_itself(shop: RunningHost, code: int, expected: int) -> None:
    """A script can branch on how a job went, without looking at anything but exit codes."""
    assert shop.run_cli("register", "tasks:leave", "--name", "job", "--arg", str(code)).returncode == 0
    result = shop.run_cli("wait", "job", "--shutdown", "--timeout", "30")
    assert result.returncode == expected, result.stderr
    assert f"exit {code}" in result.stdout


def test_a_start_that_fails(shop: RunningHost) -> None:
    """C10: `register --wait` on a function that is not there exits 1 with the reason; without --wait it exits 0."""
    result = shop.run_cli("register", "tasks:nope", "--wait")
    assert result.returncode == 1
    assert result.stderr.startswith('ERROR:  background worker "tasks:nope" failed to start:')
    assert "nope" in result.stderr.splitlines()[0]
    assert result.stdout == ""
    assert shop.run_cli("register", "tasks:nope", "--name", "again").returncode == 0


def test_no_free_slot(shop: RunningHost) -> None:
    """C14: exit code 5 and nothing else changes."""
    for number in range(3):
        assert shop.run_cli("register", "tasks:idle", "--name", f"w{number}").returncode == 0
    result = shop.run_cli("register", "tasks:idle", "--name", "one too many")
    assert result.returncode == 5
    assert result.stderr.startswith("ERROR:")
    assert len(shop.status()["slots"]) == 4


def test_refusals(shop: RunningHost) -> None:
    """C06, C08, C09: what cannot be registered is exit code 2, in the host's words."""
    flag = ("--flag", "BGWORKER_BACKEND_DATABASE_CONNECTION")
    for arguments, words in (
        (flag, "this host has no database"),
        ((*flag, "--start-time", "BgWorkerStart_PostmasterStart"), "BgWorkerStart_PostmasterStart"),
        (("--restart-time", "86401"), "bgw_restart_time is out of range"),
        (("--extra", "x" * 129), "at most 128"),
    ):
        result = shop.run_cli("register", "tasks:idle", *arguments)
        assert result.returncode == 2, result.stderr
        assert words in result.stderr


def test_an_ambiguous_name_is_refused_with_the_list(shop: RunningHost) -> None:
    """An act on a name that two bear hits neither; the handles to choose from are named."""
    handles = [json.loads(shop.run_cli("register", "tasks:idle", "--name", "twin", "--json").stdout)["handle"] for _ in range(2)]
    result = shop.run_cli("terminate", "twin")
    assert result.returncode == 1
    assert all(handle in result.stderr for handle in handles)
    assert len([s for s in shop.status()["slots"] if s["bgw_name"] == "twin"]) == 2
    assert shop.run_cli("status", "twin").stdout.count("twin") == 2
    assert shop.run_cli("terminate", *handles, "--wait").returncode == 0


def test_a_terminated_worker_stays_down_until_it_is_started(shop: RunningHost) -> None:
    """C29: terminate, the entry under finished, start; and restart gives it another process."""
    before = shop.wait_for_worker("keeper")
    assert shop.run_cli("terminate", "keeper", "--wait").returncode == 0
    finished = shop.wait_until(lambda: shop.finished("keeper"), "keeper is finished")
    assert finished is not None
    assert finished["reason"].startswith("terminated by an operator")
    assert "keeper" in shop.run_cli("status", "--all").stdout
    assert shop.run_cli("start", "keeper").returncode == 0
    again = shop.wait_for_worker("keeper")
    assert again["pid"] != before["pid"]
    assert shop.run_cli("restart", "keeper").returncode == 0
    shop.wait_until(lambda: shop.wait_for_worker("keeper")["pid"] != again["pid"], "keeper has another process")


def test_a_handle_that_never_was(shop: RunningHost) -> None:
    """C35: terminate may be repeated with a handle of the past; one that the host has not had is a mistake in the command."""
    job = shop.run_cli("register", "tasks:leave", "--name", "job", "--arg", "0", "--json")
    slot, _, generation = json.loads(job.stdout)["handle"].partition(".")
    shop.wait_until(lambda: shop.finished("job"), "the job is over")
    assert shop.run_cli("terminate", f"{slot}.{generation}").returncode == 0
    for never in (f"{slot}.{int(generation) + 1}", f"{slot}.0"):
        result = shop.run_cli("terminate", never)
        assert (result.returncode, result.stdout) == (1, "")
        assert f"ERROR:  there is no background worker {never}, and never was one\n" in result.stderr
        with shop.client() as client:
            assert str(client.terminate(never)) == never, "a program may hold the handle of an earlier host"
    assert shop.run_cli("terminate", "999.1").returncode == 1


def test_a_worker_that_is_finished(shop: RunningHost) -> None:
    """C29: whoever acts on it reads that it is, why, and where the rest is told; `start` starts a static one, and no other."""
    job = shop.run_cli("register", "tasks:leave", "--name", "a job", "--arg", "0", "--wait", "--json")
    handle = json.loads(job.stdout)["handle"]
    shop.wait_until(lambda: shop.finished("a job"), "the job is over")
    assert shop.run_cli("terminate", "keeper", "--wait").returncode == 0
    verbs = ("terminate", "restart", "signal", "upgrade")
    for verb in ("start", *verbs):
        result = shop.run_cli(verb, "a job")
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == (
            "ERROR:  background worker \"a job\" is finished\nDETAIL:  Exit 0.\nHINT:  How it came to that: bgworker why 'a job'\n"
        )
    for name in ("restart", "signal"):
        assert 'background worker "a job" is finished' in shop.run_cli(name, handle).stderr
    for verb in verbs:
        result = shop.run_cli(verb, "keeper")
        assert result.returncode == 1
        assert 'ERROR:  background worker "keeper" is finished\nDETAIL:  Terminated by ' in result.stderr
        assert "HINT:  Start it with: bgworker start keeper. How it came to that: bgworker why keeper\n" in result.stderr
    assert 'HINT:  The nearest is "a job".' in shop.run_cli("restart", "a jop").stderr
    assert shop.run_cli("start", "keeper").returncode == 0
    shop.wait_for_worker("keeper")
    assert 'background worker "kepper" does not exist\nHINT:  The nearest is "keeper".' in shop.run_cli("restart", "kepper").stderr


def test_signal(shop: RunningHost) -> None:
    """A signal reaches the worker's process."""
    before = shop.wait_for_worker("keeper")
    assert shop.run_cli("signal", "-s", "KILL", "keeper").stdout.startswith("sent KILL to keeper (")
    shop.wait_until(lambda: shop.wait_for_worker("keeper")["pid"] != before["pid"], "keeper came back")
    assert shop.run_cli("signal", "-s", "NOPE", "keeper").returncode == 1


def test_reload(shop: RunningHost) -> None:
    """Changes are told; a broken file is exit code 2 with all its errors, and changes nothing."""
    shop.config_path.write_text(
        CONFIG + '\n[[worker]]\nbgw_name = "second"\nbgw_library_name = "tasks"\nbgw_function_name = "idle"\n'
    )
    result = shop.run_cli("reload")
    assert result.returncode == 0, result.stderr
    assert "second" in result.stdout
    shop.wait_for_worker("second")
    shop.config_path.write_text("[hots]\nx = 1\n[[worker]]\nbgw_nam = 3\n")
    result = shop.run_cli("reload")
    assert result.returncode == 2
    assert "hots" in result.stderr
    assert "bgw_nam" in result.stderr
    assert shop.slot("second") is not None


def test_stop_and_what_is_left_to_say(shop: RunningHost) -> None:
    """Stop comes back when the host has ended, exit code 0 on both sides; afterwards status and logs speak from the files."""
    assert shop.run_cli("stop", "keeper").returncode == 2
    assert shop.run_cli("register", "tasks:leave", "--name", "job", "--arg", "3").returncode == 0
    shop.wait_until(lambda: shop.finished("job"), "job is over")
    result = shop.run_cli("stop")
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("has stopped\n")
    assert shop.process is not None
    assert shop.process.wait(timeout=10) == 0
    status = shop.run_cli("status")
    assert status.returncode == 3
    assert status.stdout.startswith("bgworker  down since ")
    assert "exit 3" in status.stdout
    asked = re.search(r"^it was shut down because user id (\d+) \(PID \d+\) asked for it$", status.stdout, re.MULTILINE)
    assert asked is not None
    assert int(asked[1]) == os.geteuid()
    assert str(shop.data_directory) in status.stderr
    for verb in (["stop"], ["wait", "keeper"], ["restart", "keeper"]):
        assert shop.run_cli(*verb).returncode == 3
    assert "left with 3" in shop.run_cli("logs", "job").stdout
    assert "shut down" in shop.run_cli("logs", "-n", "1", "host").stdout


def test_status_of_a_host_that_logged_to_standard_error(make_host: MakeHost) -> None:
    """What an earlier host has left in files is not taken for the end of the last one, whose log is elsewhere."""
    worker = '[[worker]]\nbgw_name = "keeper"\ncommand = ["sleep", "1000"]\n'
    host = make_host("[host]\nmax_worker_processes = 2\n" + worker)
    host.start()
    host.wait_for_worker("keeper")
    assert host.stop() == 0
    host.config_path.write_text('[host]\nmax_worker_processes = 2\nlog = "stderr"\n' + worker)
    host.start()
    host.wait_for_worker("keeper")
    assert host.process is not None
    host.process.kill()
    host.process.wait()
    status = host.run_cli("status")
    assert status.returncode == 3
    assert status.stdout.startswith(f"bgworker  down  {host.data_directory}\nit logged to standard error and to no file: ")
    assert "was shut down" not in status.stdout
    said = " ".join(host.run_cli("why", "keeper").stdout.split())
    assert "It logged to standard error and to no file: why it ended stands where that went." in said


def test_logs(shop: RunningHost) -> None:
    """All lines, those of one worker, and those of nobody."""
    assert shop.run_cli("register", "tasks:leave", "--name", "job", "--arg", "0").returncode == 0
    shop.wait_until(lambda: "left with 0" in shop.run_cli("logs").stdout, "the worker's line is in its log")
    assert "left with" not in shop.run_cli("logs", "keeper").stdout
    nobody = shop.run_cli("logs", "nobody")
    assert nobody.returncode == 1
    assert "The workers are: keeper" in nobody.stderr


def test_logs_that_are_still_to_come(make_host: MakeHost) -> None:
    """A worker that has written nothing is waited for, with a word on standard error; so is everything, before the first start."""
    host = make_host(CONFIG + CONFIG[CONFIG.index("[[worker]]") :].replace("keeper", "later").replace("idle", "show"), tasks=TASKS)
    later = '[[worker]]\nbgw_name = "later"'
    host.config_path.write_text(host.config_path.read_text().replace(later, f"{later}\nenabled = false"))
    host.data_directory.mkdir(mode=0o700)
    with follow(host) as everything:
        assert everything.stderr is not None
        assert everything.stderr.readline() == "LOG:  waiting for the first line; there are no logs yet\n"
        host.start_and_wait()
        assert everything.stdout is not None
        assert "LOG:  " in everything.stdout.readline()
    with follow(host, "later", "host") as one:
        assert one.stderr is not None
        assert one.stderr.readline() == 'LOG:  waiting for the first line of "later"\n'
        host.config_path.write_text(host.config_path.read_text().replace("enabled = false\n", ""))
        assert host.run_cli("reload").returncode == 0
        assert one.stdout is not None
        assert any("later: None in later" in line for line in one.stdout)
    assert host.stop() == 0
    with follow(host, "keepre") as down:
        assert down.stderr is not None
        assert down.stderr.readline() == 'LOG:  waiting for the first line of "keepre"; no host is running\n'


def test_no_logs(make_host: MakeHost) -> None:
    """A directory where no host has run has no logs, and says which directory that is."""
    host = make_host(CONFIG)
    result = host.run_cli("logs")
    assert result.returncode == 1
    assert str(host.data_directory) in result.stderr


def test_exec(make_host: MakeHost) -> None:
    """Exec runs a worker without a host, with workers.toml's python_path, and ends with the worker's exit code."""
    host = make_host(CONFIG, tasks=TASKS)
    result = host.run_cli("exec", "tasks:show", "--arg", '{"a": 1}', "--name", "mine")
    assert (result.returncode, result.stdout) == (0, "{'a': 1} in mine\n")
    assert host.run_cli("exec", "tasks:fail").returncode == 1
    assert "connection refused" in host.run_cli("exec", "tasks:fail").stderr
    missing = host.run_cli("exec", "tasks:nope")
    assert missing.returncode == 1
    assert missing.stderr.startswith("ERROR:")
    assert "Traceback" not in missing.stderr


def test_check_and_run_refuse_the_same_file(make_host: MakeHost) -> None:
    """T64: errors of workers.toml are exit code 2, all at once, for check and for run, and nothing is started."""
    host = make_host('[host]\nmax_worker_processes = "many"\n[[worker]]\nbgw_name = 3\n')
    for verb in ("check", "run"):
        result = host.run_cli(verb)
        assert result.returncode == 2
        assert "max_worker_processes" in result.stderr
        assert "bgw_name" in result.stderr
    assert not host.data_directory.exists()


def test_check_names_the_plugin_that_kills_it(make_host: MakeHost) -> None:
    """T53: a module that crashes its interpreter is named, with how the process ended, and the command line survives."""
    host = make_host(
        '[host]\nshared_preload_libraries = ["crasher"]\n', crasher="import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    result = host.run_cli("check")
    assert result.returncode == 1
    assert result.stderr.startswith("ERROR:  ")
    assert "was terminated by signal 11: Segmentation fault" in result.stderr
    assert "crasher" in result.stderr


def test_a_second_host_is_refused(shop: RunningHost) -> None:
    """T30: a second `run` on the directory is exit code 2 and names the one that runs."""
    result = shop.run_cli("run")
    assert result.returncode == 2
    assert f"process {shop.status()['host']['pid']}" in result.stderr
    assert shop.slot("keeper") is not None


def test_options_before_and_after_the_verb(shop: RunningHost) -> None:
    """-D and -c mean the same in both places, and the later one wins."""
    right, wrong = str(shop.data_directory), str(shop.directory / "elsewhere")
    for arguments in (["-D", right, "status"], ["status", "-D", right], ["-D", wrong, "status", "--data-directory", right]):
        assert shop.run_cli(*arguments).returncode == 0
    result = shop.run_cli("status", "-D", wrong)
    assert result.returncode == 3
    assert wrong in result.stderr
