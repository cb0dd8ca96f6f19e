"""From a blank process to the worker's function, and what it finds there."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tests.integration.worker.driving import HERE, PlayedHost, inheritable_fds

from bgworker.worker import WL_TIMEOUT

BORN = pytest.mark.parametrize("executed", [False, True], ids=["clone", "exec"])


@BORN
def test_runs_the_function_with_its_argument(host: PlayedHost, executed: bool) -> None:
    """C11: the function gets bgw_main_arg, and its return ends the worker with code 0."""
    life = host.start("write_argument", {"every": [1, None, "ä"]}, executed=executed)
    assert life.read("out") == "dict {'every': [1, None, 'ä']}\n"
    assert life.wait() == 0


@BORN
def test_starts_with_signals_blocked(host: PlayedHost, executed: bool) -> None:
    """C21: everything but SIGQUIT, SIGKILL, SIGSTOP and the faults is blocked when the function is entered."""
    life = host.start("look_at_process", executed=executed, bgw_name="looker")
    lines = life.read("out").splitlines()
    blocked = set(lines[0].split()[1:])
    free = {"SIGQUIT", "SIGKILL", "SIGSTOP", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS"}
    assert blocked == {s.name for s in signal.Signals} - free
    assert lines[1] == "argv ['bgworker: looker']"
    # What whoever runs the tests leaves open is theirs.
    assert set(lines[2].split()[1:]) <= inheritable_fds()
    assert lines[3].startswith("title bgworker: looker")


def test_host_that_closes_the_channel_wastes_no_process(host: PlayedHost) -> None:
    """C01: a spare whose channel ends exits quietly with code 0."""
    life = host.bear()
    life.channel.close()
    assert life.wait() == 0
    assert life.read("err") == ""


def test_host_that_dies_leaves_no_blank_worker(host: PlayedHost) -> None:
    """C24: a blank worker ends with its host."""
    life = host.bear()
    life.die_as_host()
    assert life.wait() == 0


@pytest.mark.parametrize(
    ("library", "function", "primary"),
    [
        ("no_such_module", "main", "could not load library \"no_such_module\": No module named 'no_such_module'"),
        ("functions.nothing", "main", "could not load library \"functions.nothing\": No module named 'functions.nothing'"),
        ("broken", "main", 'could not load library "broken": ZeroDivisionError: division by zero'),
        ("leaving", "main", 'could not load library "leaving": SystemExit: 3'),
        ("needy", "main", "could not load library \"needy\": ModuleNotFoundError: No module named 'not_installed'"),
        ("functions", "nothing", 'could not find function "nothing" in library "functions"'),
        ("functions", "NOT_A_FUNCTION", 'could not find function "NOT_A_FUNCTION" in library "functions"'),
        ("bgworker", "main", 'could not find function "main" in library "bgworker"'),
    ],
)
def test_missing_library_or_function_is_the_workers_failure(
    host: PlayedHost, tmp_path: Path, library: str, function: str, primary: str
) -> None:
    """C10: the failure names library and function, reaches host and log, and the exit code is 1."""
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "leaving.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "needy.py").write_text("import not_installed\n")
    life = host.bear()
    life.assign(function, library=library, python_path=[str(HERE), str(tmp_path)])
    message = life.receive()
    assert message["type"] == "start_failed"
    assert message["error"]["code"] == "plugin"
    assert message["error"]["message_primary"] == primary
    assert "Error" in message["traceback"] or "SystemExit" in message["traceback"]
    log = life.read("err")
    assert f"FATAL:  {primary}\n" in log
    if library == "broken":
        assert 'broken.py", line 1' in log
        assert "_worker" not in log
    assert life.wait() == 1


def test_function_may_be_inside_something(host: PlayedHost, tmp_path: Path) -> None:
    """C10: a dotted function name leads into a class of the library."""
    (tmp_path / "shop.py").write_text("class Queue:\n    @staticmethod\n    def drain(arg): print('drained', arg)\n")
    life = host.start("Queue.drain", 3, library="shop", python_path=[str(tmp_path)])
    assert life.read("out") == "drained 3\n"


@pytest.mark.parametrize(
    "spoiling",
    [
        "signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01); time.sleep(0.05)",
        "signal.set_wakeup_fd(-1); signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "signal.pthread_sigmask(signal.SIG_SETMASK, [])",
    ],
    ids=["alarm", "handlers", "mask"],
)
def test_import_cannot_spoil_the_start(host: PlayedHost, tmp_path: Path, spoiling: str) -> None:
    """C21, T56: what an import does to mask, handlers, alarm and wakeup descriptor is undone before the function runs."""
    (tmp_path / "spoiler.py").write_text(f"import signal, time\n{spoiling}\nfrom functions import look_at_process, wait_for_ever\n")
    life = host.start("look_at_process", library="spoiler", python_path=[str(HERE), str(tmp_path)])
    assert "SIGTERM" in life.read("out").splitlines()[0]
    life = host.start("wait_for_ever", library="spoiler", python_path=[str(HERE), str(tmp_path)])
    life.read_until("ready")
    life.wait_until_asleep()
    life.signal(signal.SIGTERM)
    assert life.wait() == 1


def test_entry_is_a_copy_of_the_registration(host: PlayedHost) -> None:
    """C12: bgw_extra is readable through the worker's own entry, and nothing done to entry or argument changes it."""
    life = host.start("entry", {"list": []}, bgw_extra="extra ä")
    assert life.read("out") == "tested extra ä {'list': []}\n"


def test_started_programs_hold_nothing_of_ours(host: PlayedHost) -> None:
    """A program that the worker starts has its standard streams and no descriptor of the runtime."""
    life = host.start("start_program")
    fds = life.read("out").split()[1:]
    assert {fd for fd in fds if int(fd) > 2} <= {"3"} | inheritable_fds()  # 3 is what ls itself opens


def test_forked_child_is_no_worker(host: PlayedHost) -> None:
    """A child that a worker forks dies of its signals, wakes no latch of the parent, and has no faces."""
    life = host.start("fork_child")
    assert life.read("out") == f"this process is not a background worker, wakeup fd -1\n-{int(signal.SIGTERM)}\n{WL_TIMEOUT}\n"
    assert life.wait() == 0


def test_inherited_exit_callbacks_do_not_run(host: PlayedHost, tmp_path: Path) -> None:
    """A clone runs its own exit callbacks and none of the process it was cloned from."""
    import atexit
    import tempfile

    mark = tmp_path / "mark"
    atexit.register(mark.write_text, "loader's callback ran")
    with tempfile.TemporaryDirectory(dir=tmp_path) as loaders:
        try:
            life = host.start("atexit_and_logging")
            out = life.read("out").splitlines()
            err = life.read("err")
        finally:
            atexit.unregister(mark.write_text)
        assert life.wait() == 0
        assert not mark.exists()
        assert os.path.isdir(loaders)
    assert out[1:] == ["exit callback"]
    assert not os.path.exists(out[0]), "the worker's own temporary directory is cleaned up"
    assert "buffered log line" in err
    assert "in an exit callback" in err
