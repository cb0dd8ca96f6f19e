"""_core/effects.py: effects are values that nobody can change between the machine and the host."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import get_args

import pytest

from bgworker._core import effects
from bgworker._core.effects import Effect, Launch, Log, Signal


def test_effects_are_frozen_values() -> None:
    """Two equal effects compare equal, and neither can be changed."""
    assert Launch(1, 2, 3) == Launch(1, 2, 3)
    signal = Signal(1, 2, 300, 15, False)
    with pytest.raises(FrozenInstanceError):
        signal.pid = 1  # type: ignore[misc]


def test_union_names_every_effect() -> None:
    """A host that matches over Effect misses none of the records of the module."""
    records = {value for value in vars(effects).values() if isinstance(value, type) and value.__module__ == effects.__name__}
    assert set(get_args(Effect)) == records


def test_log_needs_no_detail() -> None:
    """A log line may be a primary message alone."""
    assert (Log("LOG", "x").detail, Log("LOG", "x").hint) == ("", "")
