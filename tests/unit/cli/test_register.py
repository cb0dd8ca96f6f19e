"""register and wait."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from bgworker._spec import BGW_NEVER_RESTART, BGWORKER_SHMEM_ACCESS, DATABASE_WORKER_FLAGS, BgWorkerStartTime
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
