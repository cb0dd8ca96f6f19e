from __future__ import annotations

import inspect

import pluggy
import pytest

from bgworker import hookspecs
from bgworker._plugins.manager import HOOKS


def test_hooks_are_those_of_the_room() -> None:
    """The host calls every hook there is, and there is no other."""
    manager = pluggy.PluginManager("bgworker")
    manager.add_hookspecs(hookspecs)
    assert sorted(name for name in vars(manager.hook) if not name.startswith("_")) == list(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_hook_is_documented(name: str) -> None:
    """A hook's documentation says when, where and how often it is called, what an exception does, and shows a body."""
    text = inspect.getdoc(getattr(hookspecs, name)) or ""
    for word in ("When: ", "Where: ", "How often: ", "Exception: ", "Example::", "@hookimpl", f"def {name}("):
        assert word in text


def test_exports_are_sorted_and_there() -> None:
    """__all__ is what a plugin author may import."""
    assert sorted(hookspecs.__all__) == hookspecs.__all__
    assert all(hasattr(hookspecs, name) for name in hookspecs.__all__)
