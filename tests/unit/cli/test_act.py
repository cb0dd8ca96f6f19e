"""start, restart, terminate, signal, stop, reload: what is asked of the host, and what is said of its answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from tests.unit.cli.conftest import FakeHandle

from bgworker.errors import ConfigurationError, HostNotRunning, WaitTimeout, WorkerNotFound

Run = Callable[..., tuple[int, str, str]]


def test_each_name_is_acted_on(client: Any, run: Run) -> None:
    """One worker that is not found does not keep the others from what was asked; the exit code tells."""
    missing = WorkerNotFound('background worker "b" does not exist')
    client.answers["restart"] = lambda name: missing if name == "b" else "3.2"
    code, out, err = run("restart", "a", "b", "c")
    assert code == 1
    assert out == "restarting a (3.2)\nrestarting c (3.2)\n"
    assert err == 'ERROR:  background worker "b" does not exist\n'
    assert [call[1] for call in client.calls] == ["a", "b", "c"]


def test_terminate_is_an_operators_act(client: Any, run: Run) -> None:
    """The host is told that a person did it, and --wait comes back when the worker has gone."""
    assert run("terminate", "a") == (0, "terminating a (3.2)\n", "")
    assert client.calls == [("terminate", "a", True)]
    client.calls.clear()
    client.answers["wait"] = {"status": "STOPPED"}
    assert run("terminate", "a", "--wait", "--timeout", "5") == (0, "terminated a (3.2)\n", "")
    assert client.calls[1] == ("wait", "3.2", "shutdown", 5.0)


def test_a_wait_that_times_out(client: Any, run: Run) -> None:
    """Exit code 4: the time was over; the worker was told to go all the same."""
    client.answers["wait"] = WaitTimeout("timed out")
    assert run("terminate", "a", "--wait", "--timeout", "0.1")[0] == 4


def test_signal(client: Any, run: Run) -> None:
    """A signal is SIGHUP unless -s names another; one given as a worker's name gets a hint."""
    assert run("signal", "a")[1] == "sent SIGHUP to a (3.2)\n"
    assert run("signal", "-s", "usr1", "a")[1] == "sent USR1 to a (3.2)\n"
    client.answers["signal"] = WorkerNotFound('background worker "SIGUSR1" does not exist')
    code, _, err = run("signal", "SIGUSR1")
    assert code == 1
    assert "HINT:  Name the signal with -s: bgworker signal -s SIGUSR1" in err


def test_acts_as_json(client: Any, run: Run) -> None:
    """--json gives each handle to a program."""
    assert json.loads(run("start", "a", "7", "--json")[1]) == [{"name": "a", "handle": "3.2"}, {"name": "7", "handle": "3.2"}]


def instance(name: str, number: int, **keys: Any) -> dict[str, Any]:
    return {"bgw_name": f"{name}-{number}", "slot": number, "generation": 1, "config": {"instance": number}, **keys}


def test_the_name_that_instances_share(client: Any, run: Run) -> None:
    """Each is acted on as if it had been named, in the order of their numbers; the exit code is the worst."""
    client.facts["slots"] = [instance("web", 10), instance("web", 2), instance("webs", 1)]
    client.facts["finished"] = [
        {
            "bgw_name": "web-3",
            "slot": 3,
            "generation": 1,
            "reason": "terminated by an operator; stays down until it is started by name",
        },
        {"bgw_name": "web-11", "slot": 4, "generation": 1, "reason": 'scaled away (exit 1); comes back when "web" is scaled to 11'},
        {"bgw_name": "web-x", "slot": 5, "generation": 1, "reason": "exit 0"},
    ]
    answers = {"web": WorkerNotFound("no"), "web-3": WorkerNotFound('background worker "web-3" is finished')}
    client.answers["restart"] = lambda name: answers.get(name, "3.2")
    code, out, err = run("restart", "web", "drain")
    assert (code, out) == (1, "restarting web-2 (3.2)\nrestarting web-10 (3.2)\nrestarting drain (3.2)\n")
    assert err == 'ERROR:  background worker "web-3" is finished\n'
    del answers["web-3"]
    assert [each["name"] for each in json.loads(run("restart", "web", "--json")[1])] == ["web-2", "web-3", "web-10"]


def test_a_worker_that_bears_the_name_itself(client: Any, run: Run) -> None:
    """Its error is the answer: nobody else is acted on in its place; so is that of a name that only looks like it."""
    missing = WorkerNotFound('background worker "web" has no process to signal')
    client.answers["signal"] = lambda name, _signal: missing if name == "web" else "3.2"
    client.facts["slots"] = [instance("web", 1), {"bgw_name": "web", "slot": 9, "generation": 1, "config": {"instance": 0}}]
    assert run("signal", "web") == (1, "", 'ERROR:  background worker "web" has no process to signal\n')
    client.facts["slots"] = [{"bgw_name": "web-1", "slot": 9, "generation": 1, "config": {"instance": 0}}]
    assert run("signal", "web")[:2] == (1, "")


def test_start_of_a_running_worker_says_so(client: Any, run: Run) -> None:
    """Nothing is asked of the host, and nothing is claimed to have been done."""
    running = FakeHandle("3.2")
    running.pid = 17
    client.answers["find"] = running
    assert run("start", "a") == (0, "already running: a (3.2)\n", "")
    assert [call[0] for call in client.calls] == ["find"]


def test_a_host_that_dies_in_the_middle(client: Any, run: Run) -> None:
    """Exit code 3, once, not an error for each worker that is left."""
    client.answers["start"] = HostNotRunning("connection to the host is gone")
    code, _, err = run("start", "a", "b")
    assert code == 3
    assert err.count("ERROR") == 1


def test_no_host(no_host: None, run: Run) -> None:
    """Exit code 3 with the path that was tried, for every verb that needs a host."""
    for arguments in (["start", "a"], ["stop"], ["reload"], ["wait", "a"], ["register", "a:b"], ["status", "--watch"]):
        code, out, err = run(*arguments)
        assert (code, out) == (3, "")
        assert 'no host is running in "/data"' in err


def test_stop_comes_back_when_the_host_is_gone(client: Any, run: Run) -> None:
    """Stop is fast unless told otherwise, and waits."""
    assert run("stop") == (0, "host (PID 4711) has stopped\n", "")
    assert client.calls == [("stop", "fast"), ("wait_until_gone", None)]


def test_reload_prints_what_changed(client: Any, run: Run) -> None:
    """Changes on standard output, warnings on standard error."""
    client.answers["reload"] = {
        "changes": [{"bgw_name": "a", "action": "live", "reason": "stop_timeout 1 -> 2"}],
        "settings": [],
        "warnings": ["settings of x are not used"],
    }
    client.answers["events"] = nullcontext()
    code, out, err = run("reload")
    assert (code, out, err) == (0, "live a (stop_timeout 1 -> 2)\n", "WARNING:  settings of x are not used\n")
    client.answers["reload"] = {"changes": [], "settings": [], "warnings": []}
    assert run("reload")[1] == "reloaded; no registration has changed\n"


def test_reload_of_a_broken_file(client: Any, run: Run) -> None:
    """Exit code 2 with every error of the file."""
    client.answers["events"] = nullcontext()
    client.answers["reload"] = ConfigurationError("workers.toml has 2 errors", "first error\nsecond error")
    code, _, err = run("reload")
    assert code == 2
    assert "first error\nsecond error\n" in err
