from __future__ import annotations

import functools
import subprocess
import sys
from typing import Any

import pytest

from bgworker._declare import background_worker, declared_keys
from bgworker._spec import FIELD_NAMES
from bgworker.errors import RegistrationError


def test_function_stays_as_it_is() -> None:
    """The decorator adds keys to a function and changes nothing else about it."""

    def drain(arg: Any) -> Any:
        return arg

    assert background_worker(bgw_name="drain orders", bgw_restart_time=5)(drain) is drain
    assert drain(7) == 7
    assert declared_keys(drain) == {"bgw_name": "drain orders", "bgw_restart_time": 5}


def test_keys_are_a_copy() -> None:
    """Nobody changes a function's keys by changing what was read."""

    @background_worker(bgw_type="x")
    def drain(arg: Any) -> None: ...

    declared_keys(drain).clear()
    assert declared_keys(drain) == {"bgw_type": "x"}


@pytest.mark.parametrize("key", ["bgw_library_name", "bgw_function_name", "bgw_notify_pid", "name", "bgw_nmae"])
def test_other_keys_are_refused(key: str) -> None:
    """What the entry point says, and what is no key at all, is an error where it is written."""
    keys: Any = {key: "x"}
    with pytest.raises(RegistrationError, match=f'"{key}" is not a key of it') as caught:
        background_worker(**keys)
    if key == "bgw_nmae":
        assert caught.value.message_hint == 'Did you mean "bgw_name"?'
    assert "bgw_restart_time" not in caught.value.message_detail


def test_every_other_field_is_a_key() -> None:
    """A field added to the registration can be declared; the number of an instance is the host's to give."""
    for key in set(FIELD_NAMES) - {"bgw_library_name", "bgw_function_name", "bgw_notify_pid", "command", "instance"}:
        keys: Any = {key: None}
        background_worker(**keys)


def test_things_without_keys() -> None:
    """Whatever an entry point leads to, asking for its keys is safe."""

    class Eager:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError

    for thing in (len, functools.partial(len), 3, None, Eager(), Eager):
        assert declared_keys(thing) == {}


def test_import_is_cheap() -> None:
    """Declaring costs no pluggy, no msgspec and no metadata."""
    code = "import sys, bgworker._declare; print(sorted({'pluggy', 'msgspec', 'importlib_metadata', 'click'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
