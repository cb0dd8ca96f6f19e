"""The keys that say in what a worker's process runs: what they may hold, in the file and on the wire."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bgworker._config.load import ConfigurationErrors, load_configuration, parse_configuration
from bgworker._control.protocol import MAX_REQUEST_BYTES, encode
from bgworker._host.plan import changed_keys
from bgworker._host.status import config_view
from bgworker._spec import MAX_MAIN_ARG_BYTES, BackgroundWorker, sanity_check, worker_from_dict
from bgworker._surroundings import LIMITS, MAX_ENVIRONMENT_BYTES, MAX_PATH
from bgworker.errors import RegistrationError

OWN = '[[worker]]\nbgw_name = "own"\nbgw_library_name = "shop"\nbgw_function_name = "drain"\n'


def error_of(line: str) -> str:
    """Return the one error that a line in a [[worker]] gives, from the key on."""
    with pytest.raises(ConfigurationErrors) as caught:
        parse_configuration(OWN + line, "/srv/workers.toml", {})
    (error,) = caught.value.errors
    assert error.message_primary.startswith("/srv/workers.toml:5: "), error.message_primary
    return error.message_primary.partition('[[worker]] #1 "own" ')[2]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("user = 1000", "user: expected a string, the name or number of a user, found the integer 1000"),
        ('user = ""', "user: is empty"),
        ('user = "a\\u001bb"', "user: has control characters"),
        (f'user = "{"x" * 256}"', "user: is too long: 256 bytes of UTF-8, at most 255 are allowed"),
        ("group = true", "group: expected a string, the name or number of a group, found true"),
        ('group = " "', "group: is empty"),
        ('environment = "A=secret"', "environment: expected a table of strings, found another string"),
        ("environment = { PORT = 5432 }", 'environment: variable "PORT" is not a string'),
        ('environment = { "A=B" = "x" }', 'environment: has a variable with an impossible name, "A=B"'),
        ('environment = { A = "a\\u0000b" }', 'environment: variable "A" has a value that no environment can hold'),
        (f'environment = {{ A = "{"x" * 8200}" }}', "environment: is too long"),
        ("env_file = 1", "env_file: expected a path, found the integer 1"),
        ('env_file = ""', "env_file: is empty"),
        (f'env_file = "/{"x" * 1024}"', "env_file: is too long: 1025 bytes of UTF-8, at most 1024 are allowed"),
        ('working_directory = "a\\u001b"', "working_directory: has control characters"),
        ("umask = 22", 'umask: expected a string of octal digits, such as "022", found the integer 22'),
        ('umask = "99"', 'umask: must be a string of octal digits, such as "022", found "99"'),
        ("nice = 20", "nice: expected an integer from -20 to 19, found the integer 20"),
        ("nice = 1.5", "nice: expected an integer from -20 to 19, found the number 1.5"),
        ("rlimits = 1024", "rlimits: expected a table of limits, found the integer 1024"),
        ("rlimits = { files = 1 }", 'rlimits: has no limit "files"'),
        ("rlimits = { locks = 1 }", 'rlimits: has no limit "locks"'),
        ("rlimits = { nofile = -1 }", 'rlimits: nofile must be an integer, "unlimited", or a table of both soft and hard'),
        ("rlimits = { nofile = true }", 'rlimits: nofile must be an integer, "unlimited", or a table of both soft and hard'),
        (
            "rlimits = { nofile = { soft = 1 } }",
            'rlimits: nofile must be an integer, "unlimited", or a table of both soft and hard',
        ),
        ("rlimits = { nofile = { soft = 2, hard = 1 } }", "rlimits: nofile has a soft limit above its hard limit"),
        (
            'rlimits = { nofile = { soft = "unlimited", hard = 1 } }',
            "rlimits: nofile has a soft limit above its hard limit",
        ),
    ],
)
def test_wrong_value_in_the_file(line: str, error: str) -> None:
    """Each wrong value is an error at its line and key."""
    assert error_of(line) == error


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"user": 5}, "user must be a string, the name or number of a user"),
        ({"group": ["x"]}, "group must be a string, the name or number of a group"),
        ({"environment": ["secret"]}, "environment must be a table of strings"),
        ({"umask": 18}, 'umask must be a string of octal digits, such as "022"'),
        ({"nice": True}, "nice must be an integer from -20 to 19"),
        ({"rlimits": 5}, "rlimits must be a table of limits"),
        ({"working_directory": {}}, "working_directory must be a path"),
    ],
)
def test_wrong_type_on_the_wire(keys: dict[str, Any], reason: str) -> None:
    """A dynamic registration with a wrong type is refused before anything is done with it."""
    with pytest.raises(RegistrationError) as refusal:
        worker_from_dict({"bgw_name": "w", **keys})
    assert refusal.value.message_primary == f'background worker "w" cannot be registered: {reason}'
    assert "secret" not in refusal.value.message_detail


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"working_directory": "here"}, "working_directory is not an absolute path"),
        ({"env_file": "./x.env"}, "env_file is not an absolute path"),
        ({"nice": 20}, "nice is out of range"),
        ({"environment": {"A": "\ud800"}}, 'environment variable "A" has a value that no environment can hold'),
    ],
)
def test_wrong_value_on_the_wire(keys: dict[str, Any], reason: str) -> None:
    """What the file would have made right, or refused by its type, is refused by the check that all share."""
    worker = worker_from_dict({"bgw_name": "w", "bgw_library_name": "l", "bgw_function_name": "f", **keys})
    with pytest.raises(RegistrationError) as refusal:
        sanity_check(worker, is_dynamic=True)
    assert refusal.value.message_primary == f'background worker "w" cannot be registered: {reason}'


def test_paths_are_beside_the_file() -> None:
    """A relative path in workers.toml is relative to it, as every other one there."""
    text = OWN + 'env_file = "mail.env"\nworking_directory = "../var"\n'
    (worker,) = parse_configuration(text, "/srv/shop/workers.toml", {}).worker
    assert (worker.env_file, worker.working_directory) == ("/srv/shop/mail.env", "/srv/var")


def test_paths_of_an_included_worker(tmp_path: Path) -> None:
    """What an included file names is relative to that file, which may be moved with what stands beside it."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "workers.toml").write_text('include = ["conf.d/*.toml"]\n')
    (tmp_path / "conf.d" / "mail.toml").write_text(OWN + 'env_file = "mail.env"\n')
    (worker,) = load_configuration(str(tmp_path / "workers.toml"), {}).worker
    assert worker.env_file == str(tmp_path / "conf.d" / "mail.env")


def test_values_of_variables_are_shown_to_nobody() -> None:
    """A representation, which ends up in logs, holds no value of the environment; status holds the names."""
    (table,) = parse_configuration(OWN + 'environment = { TOKEN = "secret" }', "/srv/workers.toml", {}).worker
    worker = BackgroundWorker(bgw_name="w", environment={"TOKEN": "secret", "A": "b"})
    assert "secret" not in repr(table) + repr(worker)
    assert config_view(worker)["environment"] == ["A", "TOKEN"]


def test_plan_shows_no_value_of_a_variable() -> None:
    """A plan names the variables that change, and nothing of what is in them."""
    before, after = (
        BackgroundWorker(bgw_name="w", environment=environment, nice=nice)
        for environment, nice in (({"TOKEN": "secret", "A": "b"}, 1), ({"TOKEN": "secret2", "A": "b"}, 2))
    )
    assert [str(change) for change in changed_keys(before, after)] == ["environment.TOKEN changed", "nice 1 -> 2"]
    assert [str(change) for change in changed_keys(replace(before, environment=None, nice=2), after)] == ["environment changed"]


def test_longest_registration_fits_a_line() -> None:
    """The bounds of all keys together leave room in the longest line of the protocol."""
    worker = BackgroundWorker(
        bgw_name="n" * 95,
        bgw_type="t" * 95,
        bgw_library_name="l" * 95,
        bgw_function_name="f" * 95,
        bgw_main_arg="a" * (MAX_MAIN_ARG_BYTES - 2),
        bgw_extra="e" * 128,
        user="u" * 255,
        group="g" * 255,
        environment={"A": "x" * (MAX_ENVIRONMENT_BYTES - 9)},
        env_file="/" + "p" * (MAX_PATH - 1),
        working_directory="/" + "p" * (MAX_PATH - 1),
        rlimits={name: {"soft": 1 << 61, "hard": "unlimited"} for name in LIMITS},
    )
    sane = sanity_check(worker, is_dynamic=True)
    assert len(encode({"id": 1, "method": "register", "params": {"worker": sane.to_dict()}})) < MAX_REQUEST_BYTES - 4096


KEYS: dict[str, Any] = {
    "user": "web",
    "group": "staff",
    "environment": {"A": "b"},
    "env_file": "/etc/shop.env",
    "working_directory": "/srv",
    "umask": "027",
    "nice": 5,
    "rlimits": {"nofile": 64, "core": {"soft": 0, "hard": "unlimited"}},
}


def test_wire_form() -> None:
    """Every key survives the way through JSON values, and none is the default."""
    worker = BackgroundWorker(bgw_name="w", bgw_library_name="l", bgw_function_name="f", **KEYS)
    sane = sanity_check(worker, is_dynamic=True)
    assert worker_from_dict(sane.to_dict()) == worker_from_dict(sane.to_wire()) == sane
    assert {key: sane.to_dict()[key] for key in KEYS} == KEYS == sane.surroundings()
    plain = BackgroundWorker(bgw_name="w")
    assert plain.surroundings() == {}
    assert worker_from_dict(plain.to_dict()) == worker_from_dict(plain.to_wire()) == plain
    assert plain.to_wire().keys() < plain.to_dict().keys()


@pytest.mark.parametrize(
    ("key", "is_needed"),
    [(key, key in ("user", "group", "environment", "env_file")) for key in KEYS],
)
def test_what_takes_an_interpreter_of_its_own(key: str, is_needed: bool) -> None:
    """A clone of the loader has imported as the host's user, with the host's environment."""
    assert BackgroundWorker(bgw_name="w", **{key: KEYS[key]}).needs_own_interpreter is is_needed
    assert not BackgroundWorker(bgw_name="w").needs_own_interpreter
