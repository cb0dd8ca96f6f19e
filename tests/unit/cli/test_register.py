"""register and wait."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from bgworker._spec import BGW_NEVER_RESTART, BGWORKER_SHMEM_ACCESS, DATABASE_WORKER_FLAGS, FIELD_NAMES, BgWorkerStartTime
from bgworker.cli._set import KEYS, complete_key
from bgworker.errors import NoFreeSlot, WaitTimeout, WorkerNotFound

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def registered(client: Any, make_handle: Any) -> Any:
    """The client, with a handle whose last exit the test can set."""
    client.handle_made = make_handle("3.2")
    client.answers["register_dynamic_background_worker"] = lambda worker: client.handle_made
    return client


def test_the_least(registered: Any, run: Run) -> None:
    """Without options: SHMEM_ACCESS alone, never restarted because the host says so for dynamic ones, a name that says what."""
    assert run("register", "shop_queue:export") == (0, "registered shop_queue:export (3.2)\n", "")
    worker = registered.calls[0][1]
    assert (worker.bgw_name, worker.bgw_library_name, worker.bgw_function_name) == ("shop_queue:export", "shop_queue", "export")
    assert worker.bgw_flags == BGWORKER_SHMEM_ACCESS
    assert worker.bgw_restart_time is None
    assert worker.bgw_main_arg is None


def test_every_option(registered: Any, run: Run) -> None:
    """Each option is the registration's key of its name."""
    arguments = "--name n --type t --flag BGWORKER_BACKEND_DATABASE_CONNECTION --restart-time 2.5 --extra e --stop-timeout 9"
    more = [
        "--start-time",
        "BgWorkerStart_ConsistentState",
        "--arg",
        '{"a": [1]}',
        "--wake-on",
        "x",
        "--wake-on",
        "y",
        "--if-absent",
        "--stop-when",
        "phase_lost",
    ]
    assert run("register", "a.b:c", *arguments.split(), *more)[0] == 0
    _, worker, if_absent = registered.calls[0]
    assert if_absent is True
    assert (worker.bgw_name, worker.bgw_type, worker.bgw_extra) == ("n", "t", "e")
    assert worker.bgw_flags == DATABASE_WORKER_FLAGS
    assert worker.bgw_restart_time == 2.5
    assert worker.bgw_start_time is BgWorkerStartTime.BgWorkerStart_ConsistentState
    assert worker.bgw_main_arg == {"a": [1]}
    assert worker.wake_on == ("x", "y")
    assert (worker.stop_timeout, worker.stop_when, worker.singleton) == (9.0, "phase_lost", False)
    assert run("register", "a:b", "--restart-time", "never")[0] == 0
    assert registered.calls[1][1].bgw_restart_time == BGW_NEVER_RESTART
    assert registered.calls[1][1].stop_when == "never"
    assert run("register", "a:b", "--singleton")[0] == 0
    assert registered.calls[2][1].singleton is True


def test_flag_leaves_the_name_alone(registered: Any, run: Run) -> None:
    """A worker with a flag and no name of its own is called by its library and function."""
    assert run("register", "a:b", "--flag", "BGWORKER_BACKEND_DATABASE_CONNECTION")[0] == 0
    assert registered.calls[0][1].bgw_name == "a:b"


def test_text_that_toml_cannot_escape(registered: Any, run: Run) -> None:
    """A value that is no TOML is taken as it is, whatever its characters."""
    assert run("register", "a:b", "--set", "environment.GREETING=bon jour \U0001f600")[0] == 0
    assert registered.calls[0][1].environment == {"GREETING": "bon jour \U0001f600"}


def test_no_free_slot(registered: Any, run: Run) -> None:
    """C14: a caller can tell a full table from every other refusal by exit code 5."""
    registered.answers["register_dynamic_background_worker"] = NoFreeSlot("no free slot", "All 8 are taken.")
    code, _, err = run("register", "a:b")
    assert code == 5
    assert "DETAIL:  All 8 are taken." in err


def test_wait_for_a_start(registered: Any, run: Run) -> None:
    """--wait prints the pid of a worker that has started."""
    registered.answers["wait"] = {"status": "STARTED", "pid": 99, "reason": ""}
    assert run("register", "a:b", "--wait") == (0, "started a:b (3.2, PID 99)\n", "")
    assert json.loads(run("register", "a:b", "--wait", "--json")[1])["pid"] == 99


def test_wait_for_a_start_that_fails(registered: Any, run: Run) -> None:
    """C36: a failed start is exit code 1 with the reason."""
    registered.answers["wait"] = {"status": "STOPPED", "pid": None, "reason": 'failed to start: could not find function "b"'}
    code, out, err = run("register", "a:b", "--wait")
    assert (code, out) == (1, "")
    assert err.startswith('ERROR:  background worker "a:b" failed to start: could not find function "b"\n')


def test_wait_for_a_job_that_is_done_already(registered: Any, run: Run) -> None:
    """One that has ended well before anybody looked did not fail; one that has ended badly did."""
    registered.answers["wait"] = {"status": "STOPPED", "pid": None, "reason": "exit 0"}
    registered.handle_made.ended = SimpleNamespace(code=0, signal=None, at="", reason="exit 0")
    assert run("register", "a:b", "--wait") == (0, "finished a:b (3.2): exit 0\n", "")
    registered.answers["wait"] = {"status": "STOPPED", "pid": None, "reason": ""}
    registered.handle_made.ended = SimpleNamespace(code=1, signal=None, at="", reason="exit 1: boom")
    code, _, err = run("register", "a:b", "--wait")
    assert code == 1
    assert err == 'ERROR:  background worker "a:b" is not running: exit 1: boom\n'


def test_wait_waits_for_the_start(client: Any, run: Run) -> None:
    """Wait NAME waits for the start unless told otherwise."""
    client.answers["wait"] = {"status": "STARTED", "pid": 99, "reason": ""}
    assert run("wait", "a", "--timeout", "3") == (0, "started a (3.2, PID 99)\n", "")
    assert client.calls[1][2:] == ("startup", 3.0)
    client.answers["wait"] = {"status": "STOPPED", "pid": None, "reason": "failed to start: x"}
    code, _, err = run("wait", "a")
    assert code == 1
    assert 'background worker "a" failed to start: x' in err
    client.answers["wait"] = WaitTimeout("timed out")
    assert run("wait", "a", "--timeout", "0")[0] == 4


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (1, 1), (None, 1)])
def test_wait_for_the_end(client: Any, run: Run, make_handle: Any, code: int | None, expected: int) -> None:
    """C37: --shutdown tells by its exit code whether the job went well."""
    client.answers["find"] = make_handle("3.2", SimpleNamespace(code=code, signal=None, at="", reason="how it ended"))
    client.answers["wait"] = {"status": "STOPPED", "pid": None, "reason": "how it ended"}
    assert run("wait", "a", "--shutdown") == (expected, "stopped a (3.2): how it ended\n", "")


def test_wait_for_what_is_over(client: Any, run: Run) -> None:
    """A worker that has gone for good before the wait began is an outcome; one that never was is not found."""
    client.answers["find"] = WorkerNotFound('background worker "a" does not exist')
    client.facts["finished"] = [
        {
            "bgw_name": "a",
            "slot": 3,
            "generation": 2,
            "last_exit": {"code": 0, "signal": None, "at": "", "reason": ""},
            "reason": "exit 0",
        }
    ]
    assert run("wait", "a", "--shutdown") == (0, "stopped a (3.2): exit 0\n", "")
    assert run("wait", "b", "--shutdown")[0] == 1


def test_any_key(registered: Any, run: Run) -> None:
    """--set takes each key of a [[worker]] in TOML, or a text where it is none; tables grow by keys; an option counts less."""
    words = [
        "nice=5", "umask=022", "schedule=*/5 * * * *", 'after=["a:ready", "b"]', "restart_backoff={factor = 3}", "environment.A=b",
        'environment.B="1"', "rlimits.nofile=9", "bgw_type=new", "success_exit_codes=[3]", "bgw_main_arg.at=2026-01-31",
    ]  # fmt: skip
    assert run("register", "a:b", "--type", "old", *(word for each in words for word in ("--set", each)))[0] == 0
    worker = registered.calls[0][1]
    assert (worker.nice, worker.umask, worker.schedule, worker.bgw_type) == (5, "022", "*/5 * * * *", "new")
    assert (worker.after, worker.restart_backoff) == (("a:ready", "b"), {"factor": 3})
    assert (worker.environment, worker.rlimits) == ({"A": "b", "B": "1"}, {"nofile": 9})
    assert (worker.success_exit_codes, worker.bgw_main_arg) == ((3,), {"at": "2026-01-31"})
    assert worker.bgw_restart_time is None


def test_every_key_can_be_set() -> None:
    """A new key of a registration can be set without a line here; but for two that mean nothing from a command."""
    assert {*KEYS, "bgw_notify_pid", "instance"} == set(FIELD_NAMES)
    assert [item.value for item in complete_key(None, None, "max")] == ["max_age=", "max_memory="]  # type: ignore[arg-type]


def test_a_program(registered: Any, run: Run) -> None:
    """A command takes the place of LIBRARY:FUNCTION, and gives the name."""
    assert run("register", "--set", 'command=["sleep", "9"]') == (0, "registered sleep (3.2)\n", "")
    worker = registered.calls[0][1]
    assert (worker.command, worker.bgw_library_name, worker.bgw_function_name) == (("sleep", "9"), "", "")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["a:b", "--set", "nic=5"], 2, 'there is no key "nic"; the nearest is "nice"'),
        (["a:b", "--set", "instances=5"], 2, 'there is no key "instances"; see [[worker]] in docs/operating.md'),
        (["a:b", "--set", "nice"], 2, '"nice" is not of the form KEY=VALUE'),
        (["a:b", "--set", "ni ce=1"], 2, '"ni ce=1" is not of the form KEY=VALUE'),
        (["a:b", "--set", "bgw_main_arg=nan"], 2, 'the value of "bgw_main_arg" is no JSON value'),
        (["a:b", "--set", "nice=low"], 2, 'background worker "a:b" cannot be registered: nice must be an integer from -20 to 19'),
        (["--name", "x"], 2, "missing argument LIBRARY:FUNCTION, or --set command=[...]"),
    ],
)
def test_words_that_set_nothing(registered: Any, run: Run, words: list[str], code: int, said: str) -> None:
    """A key that is none, a value that is none, and neither a function nor a program: nothing is asked of the host."""
    found, out, err = run("register", *words)
    assert (found, out) == (code, "")
    assert said in err
    assert registered.calls == []
