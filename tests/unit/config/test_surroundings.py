"""The keys that say in what a worker's process runs: what they may hold, in the file and on the wire."""

from __future__ import annotations

from typing import Any

import pytest

from bgworker._config.load import ConfigurationErrors, parse_configuration
from bgworker._spec import BackgroundWorker, sanity_check, worker_from_dict
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
        ("user = 1000", "user: expected the name of a user, found the integer 1000"),
        ('user = ""', "user: is empty"),
        ('user = "a\\u001bb"', "user: has control characters"),
        (f'user = "{"x" * 256}"', "user: is too long: 256 bytes of UTF-8, at most 255 are allowed"),
        ("group = true", "group: expected the name of a group, found true"),
        ('group = " "', "group: is empty"),
    ],
)
def test_wrong_value_in_the_file(line: str, error: str) -> None:
    """Each wrong value is an error at its line and key."""
    assert error_of(line) == error


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"user": 5}, "user must be the name of a user"),
        ({"group": ["x"]}, "group must be the name of a group"),
    ],
)
def test_wrong_type_on_the_wire(keys: dict[str, Any], reason: str) -> None:
    """A dynamic registration with a wrong type is refused before anything is done with it."""
    with pytest.raises(RegistrationError) as refusal:
        worker_from_dict({"bgw_name": "w", **keys})
    assert refusal.value.message_primary == f'background worker "w" cannot be registered: {reason}'


KEYS: dict[str, Any] = {"user": "web", "group": "staff"}


def test_wire_form() -> None:
    """Every key survives the way through JSON values, and none is the default."""
    worker = BackgroundWorker(bgw_name="w", bgw_library_name="l", bgw_function_name="f", **KEYS)
    sane = sanity_check(worker, is_dynamic=True)
    assert worker_from_dict(sane.to_dict()) == sane
    assert {key: sane.to_dict()[key] for key in KEYS} == KEYS
    plain = BackgroundWorker(bgw_name="w")
    assert plain.surroundings() == {}
    assert worker_from_dict(plain.to_dict()) == plain


@pytest.mark.parametrize("key", ["user", "group"])
def test_what_takes_an_interpreter_of_its_own(key: str) -> None:
    """A clone of the loader has imported as the host's user, with the host's environment."""
    assert BackgroundWorker(bgw_name="w", **{key: KEYS[key]}).needs_own_interpreter
    assert not BackgroundWorker(bgw_name="w").needs_own_interpreter
