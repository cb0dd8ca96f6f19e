"""The supervision keys in workers.toml and on the wire: right values as they take effect, wrong ones with what they are told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bgworker._config.load import ConfigurationErrors, parse_configuration
from bgworker._config.merge import merge_static_workers
from bgworker._host.status import config_view
from bgworker._spec import BackgroundWorker, sanity_check, worker_from_dict
from bgworker._supervision import KEYS
from bgworker.errors import RegistrationError

OWN = '[[worker]]\nbgw_name = "own"\nbgw_library_name = "shop"\nbgw_function_name = "drain"\n'
TIMEOUT = "expected a number of seconds above 0, at most 86400"


def taken(line: str) -> BackgroundWorker:
    """Return the worker that a file with this line registers."""
    merged = merge_static_workers(parse_configuration(OWN + line, "/srv/workers.toml", {}), [], [])
    assert not merged.rejected
    return merged.workers[0].worker


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ('restart_on = "always"', "always"),
        ("restart_backoff = {}", {"factor": 2.0, "ceiling": 300.0, "jitter": 0.1, "healthy_after": 60.0}),
        ("restart_backoff = { factor = 3, ceiling = 9 }", {"factor": 3.0, "ceiling": 9.0, "jitter": 0.1, "healthy_after": 60.0}),
        ("success_exit_codes = [143, 3, 3]", (3, 143)),
        ("essential = true", True),
        ('stop_signal = "SIGINT"', "INT"),
        ('stop_signal = "QUIT"', "QUIT"),
        ("start_timeout = 2.5", 2.5),
        ("max_age = 86400", 86_400.0),
        ('max_memory = "200M"', 200 << 20),
        ('max_memory = "1 GiB"', 1 << 30),
        ("max_memory = 1000000", 1_000_000),
        ("watchdog = 30", 30.0),
        ('ready = "notify"', "notify"),
        ('after = ["a", "b:ready", "a:started"]', ("a:started", "b:ready")),
        ('after = ["with: colon:finished", "a:b"]', ("with: colon:finished", "a:b:started")),
    ],
)
def test_as_it_takes_effect(line: str, value: object) -> None:
    """Each key reaches the registration, in the form that status shows and the wire carries."""
    worker, key = taken(line), line.split()[0]
    assert getattr(worker, key) == config_view(worker)[key] == value
    assert worker_from_dict(worker.to_dict()) == worker
    assert worker_from_dict(worker.to_wire()) == worker


def test_defaults_are_the_chapters() -> None:
    """C29: without these keys a worker is as PostgreSQL's chapter says."""
    worker = taken("")
    assert [getattr(worker, key) for key in KEYS] == [
        "crash",
        None,
        (),
        False,
        "TERM",
        None,
        None,
        None,
        None,
        None,
        (),
        "started",
        0,
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('restart_on = "exit"', 'restart_on: expected "crash" or "always", found the string "exit"'),
        ("restart_on = true", 'restart_on: expected "crash" or "always", found true'),
        ("restart_backoff = 2", "restart_backoff: expected a table with any of the keys factor, ceiling, jitter, healthy_after"),
        ("restart_backoff = { faktor = 2 }", 'restart_backoff: has no key "faktor"; its keys are factor, ceiling, jitter'),
        ("restart_backoff = { factor = 0.5 }", "restart_backoff: factor must be a number from 1 to 100"),
        ('restart_backoff = { ceiling = "5m" }', "restart_backoff: ceiling must be a number from 1 to 86400"),
        ("restart_backoff = { jitter = true }", "restart_backoff: jitter must be a number from 0 to 1"),
        ("restart_backoff = { healthy_after = 0 }", "restart_backoff: healthy_after must be a number from 0.001 to 86400"),
        ("restart_backoff = { ceiling = 5 }\nbgw_restart_time = 9", "restart_backoff: ceiling is less than bgw_restart_time"),
        ('restart_backoff = {}\nbgw_restart_time = "BGW_NEVER_RESTART"', "restart_backoff: is for a worker that is restarted"),
        (
            'restart_on = "always"\nbgw_restart_time = "BGW_NEVER_RESTART"',
            "restart_on: asks for a restart that bgw_restart_time rules out",
        ),
        ("success_exit_codes = 3", "success_exit_codes: expected an array of exit codes from 0 to 255, found the integer 3"),
        (
            "success_exit_codes = [1, 256]",
            "success_exit_codes: expected an array of exit codes from 0 to 255, found the integer 256",
        ),
        ("success_exit_codes = [true]", "success_exit_codes: expected an array of exit codes from 0 to 255, found true as item 1"),
        ("essential = 1", "essential: expected true or false, found the integer 1"),
        ('stop_signal = "STOP"', "stop_signal: must be one of TERM, INT, QUIT, HUP, USR1, USR2, WINCH, ABRT, KILL"),
        ("stop_signal = 15", "stop_signal: expected one of TERM, INT, QUIT, HUP, USR1, USR2, WINCH, ABRT, KILL, found the integer"),
        ("start_timeout = 0", f"start_timeout: {TIMEOUT}, found the integer 0"),
        ("max_age = -1", f"max_age: {TIMEOUT}, found the integer -1"),
        ('max_memory = "much"', 'max_memory: must be a number of bytes above 0, or a text such as "200M"'),
        ("max_memory = 0", 'max_memory: expected a number of bytes above 0, or a text such as "200M", found the integer 0'),
        ("max_age = 0.01", "max_age: must be seconds from 1 to one day"),
        ("watchdog = 0.5", "watchdog: must be seconds from 1 to one day"),
        (
            'after = "a"',
            'after: expected an array of "NAME", "NAME:started", "NAME:ready" or "NAME:finished", found the string "a"',
        ),
        ("instances = 0", "instances: expected an integer from 1 to 1000, found the integer 0"),
        ('instances = "3"', 'instances: expected an integer from 1 to 1000, found the string "3"'),
        ('ready = "yes"', 'ready: expected "started" or "notify", found the string "yes"'),
        ("after = [1]", 'after: expected an array of "NAME", "NAME:started", "NAME:ready" or "NAME:finished", found the integer 1'),
        ('after = [":ready"]', 'after: must be a list of names of workers, each as "NAME" or "NAME:started|ready|finished"'),
        ("after = [" + ", ".join(f'"{n}"' for n in range(33)) + "]", "after: names more than 32 workers"),
        ('watchdog = "30"', 'watchdog: expected a number of seconds from 1 to 86400, found the string "30"'),
    ],
)
def test_wrong_values(line: str, problem: str) -> None:
    """A wrong value is an error of the file, and says what is expected."""
    with pytest.raises(ConfigurationErrors) as caught:
        parse_configuration(OWN + line, "/srv/workers.toml", {})
    (error,) = caught.value.errors
    assert f'[[worker]] #1 "own" {problem}' in error.message_primary


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("restart_on", ["always"]),
        ("restart_backoff", {"factor": float("nan")}),
        ("restart_backoff", []),
        ("success_exit_codes", "3"),
        ("success_exit_codes", [-1]),
        ("essential", "true"),
        ("stop_signal", None),
        ("stop_signal", "SIGSIGTERM"),
        ("start_timeout", 10**400),
        ("instance", 1),
        ("instance", True),
        ("after", "a"),
        ("ready", True),
        ("after", ["a", None]),
    ],
)
def test_wrong_values_on_the_wire(key: str, value: Any) -> None:
    """A dynamic registration is judged alike, and the refusal names the key."""
    wire = BackgroundWorker(bgw_name="w", bgw_library_name="l", bgw_function_name="f", bgw_restart_time=1.0).to_dict()
    with pytest.raises(RegistrationError, match=key):
        sanity_check(worker_from_dict({**wire, key: value}), is_dynamic=True)


@pytest.mark.parametrize(
    ("key", "value"), [("after", "ab"), ("after", 3), ("success_exit_codes", 3), ("wake_on", "x"), ("command", "sleep 50")]
)
def test_what_is_no_list_stays_what_it_is(key: str, value: Any) -> None:
    """A text is not taken apart on its way to whoever judges it, and a number is no error before that."""
    worker = replace(BackgroundWorker(bgw_name="w", bgw_library_name="l", bgw_function_name="f"), **{key: value})
    assert worker.to_dict()[key] == value
    with pytest.raises(RegistrationError, match=key):
        sanity_check(worker_from_dict(worker.to_wire()), is_dynamic=True)


def test_dynamic_worker_needs_a_restart_time() -> None:
    """C29: a dynamic worker is never restarted by default, and the refusal of "always" says so."""
    worker = BackgroundWorker(bgw_name="w", bgw_library_name="l", bgw_function_name="f", restart_on="always")
    with pytest.raises(RegistrationError) as caught:
        sanity_check(worker, is_dynamic=True)
    assert "the default of a dynamic worker" in caught.value.message_detail
