"""``command``: what it may hold, what may not stand beside it, and what becomes of the registration."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bgworker import background_worker
from bgworker._command import MAX_COMMAND_BYTES
from bgworker._config.load import ConfigurationErrors, parse_configuration
from bgworker._config.merge import PluginRegistration, merge_static_workers
from bgworker._host.status import config_view
from bgworker._process import programs
from bgworker._spec import DATABASE_WORKER_FLAGS, BackgroundWorker, sanity_check, worker_from_dict
from bgworker.errors import HostError, RegistrationError

HEAD = '[database]\nurl = "postgresql://h/d"\n[[worker]]\nbgw_name = "own"\n'


@pytest.mark.parametrize(
    ("lines", "errors"),
    [
        ('command = "redis"', ['command: expected an array of strings, a program and its arguments, found the string "redis"']),
        (
            'command = ["a", 1]',
            ["command: expected an array of strings, a program and its arguments, found the integer 1 as item 2"],
        ),
        ("command = []", ["command: names no program"]),
        ('command = [" "]', ["command: names no program"]),
        ('command = ["a\\u001b"]', ["command: has control characters in the program's name"]),
        ('command = ["a", "b\\u0000c"]', ["command: has an argument that no program can be given"]),
        (f'command = ["{"x" * MAX_COMMAND_BYTES}"]', ["command: is too long"]),
        ('command = ["a"]\nwake_on = ["x"]', ["wake_on: cannot be combined with command, which has no latch"]),
        ('command = ["a"]\nsingleton = true', ["singleton: cannot be combined with command, which has no connection"]),
        ('command = ["a"]\nbgw_main_arg = 1', ["bgw_main_arg: cannot be combined with command, which has its own arguments"]),
        ('command = ["a"]\nwatchdog = 5', ["watchdog: cannot be combined with command, which tells of no progress"]),
        ('command = ["a"]\nbgw_library_name = "x"', ["bgw_library_name: cannot be combined with command"]),
        (
            'command = ["a"]\nbgw_flags = ["BGWORKER_SHMEM_ACCESS", "BGWORKER_BACKEND_DATABASE_CONNECTION"]',
            ["bgw_flags: cannot have BGWORKER_BACKEND_DATABASE_CONNECTION beside command"],
        ),
        (
            'command = [""]\nwake_on = ["x"]\nbgw_function_name = "f"',
            [
                "command: names no program",
                "wake_on: cannot be combined with command, which has no latch",
                "bgw_function_name: cannot be combined with command",
            ],
        ),
    ],
)
def test_wrong_value_in_the_file(lines: str, errors: list[str]) -> None:
    """Each wrong value, and each key that has no meaning beside a command, is an error at its key."""
    with pytest.raises(ConfigurationErrors) as caught:
        parse_configuration(HEAD + lines, "/srv/workers.toml", {})
    found = [error.message_primary.partition('[[worker]] #1 "own" ')[2] for error in caught.value.errors]
    assert found == errors


def test_wrong_type_on_the_wire() -> None:
    """A registration whose command is no list of strings is refused."""
    for command in ("ls", ["ls", 1], {}):
        with pytest.raises(RegistrationError, match="command must be a list of strings, a program and its arguments"):
            worker_from_dict({"bgw_name": "w", "command": command})


def test_registration() -> None:
    """A command becomes the built-in function, survives the way through JSON values, and is checked twice alike."""
    sane = sanity_check(BackgroundWorker(bgw_name="w", command=("ls", "-l"), environment={"A": "b"}), is_dynamic=True)
    assert (sane.bgw_library_name, sane.bgw_function_name) == ("bgworker", "command_main")
    again = worker_from_dict(sane.to_dict())
    assert sanity_check(again, is_dynamic=True) == again == sane
    with pytest.raises(RegistrationError, match="it names no command"):
        sanity_check(replace(sane, command=None), is_dynamic=True)
    assert not sane.needs_own_interpreter  # it is executed in any case
    assert config_view(sane)["command"] == ["ls", "-l"]
    assert config_view(BackgroundWorker(bgw_name="w"))["command"] is None


@pytest.mark.parametrize(
    ("keys", "is_dynamic", "restart_on"),
    [
        ({}, False, "always"),
        ({"restart_on": "crash"}, False, "crash"),
        ({"bgw_restart_time": -1}, False, "crash"),
        ({}, True, "crash"),
        ({"bgw_restart_time": 1.0}, True, "always"),
    ],
)
def test_it_is_kept_up(keys: dict[str, Any], is_dynamic: bool, restart_on: str) -> None:
    """A program that is restarted at all is so after code 0, too, unless the registration says otherwise."""
    worker = BackgroundWorker(bgw_name="w", command=("ls",), **keys)
    assert sanity_check(worker, is_dynamic=is_dynamic).restart_on == restart_on
    function = BackgroundWorker(bgw_name="w", bgw_library_name="l", bgw_function_name="f")
    assert sanity_check(function, is_dynamic=is_dynamic).restart_on == "crash"


@pytest.mark.parametrize(
    "keys",
    [
        {"wake_on": ("x",)},
        {"bgw_flags": DATABASE_WORKER_FLAGS, "singleton": True},
        {"bgw_main_arg": False},
        {"bgw_function_name": "f"},
    ],
)
def test_conflicts_of_a_dynamic_registration(keys: dict[str, Any]) -> None:
    """What the file is refused a registration is refused."""
    with pytest.raises(RegistrationError, match=r"beside command|combined with command"):
        sanity_check(BackgroundWorker(bgw_name="w", command=("ls",), **keys), is_dynamic=True)


def test_it_is_a_worker_of_its_own() -> None:
    """A [[worker]] with a command overrides nobody: a plugin's worker of its name is the one that is rejected."""
    configuration = parse_configuration(HEAD + 'command = ["ls"]', "/srv/workers.toml", {})
    theirs = BackgroundWorker(bgw_name="own", bgw_library_name="shop", bgw_function_name="drain")
    merged = merge_static_workers(configuration, [PluginRegistration("shop", theirs)], ["shop"])
    assert [each.worker.command for each in merged.workers] == [("ls",)]
    assert [each["bgw_name"] for each in merged.rejected] == ["own"]


def test_it_is_no_key_of_a_function() -> None:
    """A function that is declared a worker cannot be a program."""
    with pytest.raises(RegistrationError, match='"command" is not a key of it'):
        background_worker(command=("ls",))  # type: ignore[call-arg]


def test_program_is_found_as_execvp_does(tmp_path: Path) -> None:
    """The first executable file on PATH is it, a name with a slash is a path, and each failure has its words."""
    for name, mode in (("one", 0o755), ("two", 0o755), ("two/tool", 0o755), ("one/tool", 0o644), ("one/plain", 0o644)):
        place = tmp_path / name
        place.mkdir() if "/" not in name else place.write_text("#!/bin/sh\n")
        place.chmod(mode)
    path = os.pathsep.join([str(tmp_path / "one"), str(tmp_path / "two")])
    assert programs.find("tool", path) == str(tmp_path / "two" / "tool")
    assert programs.find("two/tool", path, str(tmp_path)) == str(tmp_path / "two/tool")
    for name, reason in (
        ("nothing", 'there is no program "nothing" on PATH'),
        ("plain", f'program "{tmp_path}/one/plain" is not executable'),
        ("./nothing", 'there is no program "./nothing"'),
        ("one/plain", 'program "one/plain" is not executable'),
        ("one/plain/deeper", 'there is no program "one/plain/deeper"'),
        ("/", 'program "/" is no file'),
    ):
        with pytest.raises(HostError) as refusal:
            programs.find(name, path, str(tmp_path))
        assert refusal.value.message_primary == reason


def test_key_that_is_not_known() -> None:
    """A registration with a key that is none names the nearest, or where all are; never all of them."""
    for key, hint in (("comand", 'Did you mean "command"?'), ("zzz", "The keys are those of [[worker]] in docs/operating.md.")):
        with pytest.raises(RegistrationError, match=f'"{key}" is not a key of it') as caught:
            worker_from_dict({"bgw_name": "w", key: 1})
        assert (caught.value.message_detail, caught.value.message_hint) == ("", hint)
