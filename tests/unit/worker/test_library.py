"""How a library and a function name lead to a function, and what is said when they do not."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from bgworker._worker.library import resolve
from bgworker.errors import PluginError


class Loaded:
    """Plugins as a preloaded worker inherits them: one, "shop-queue", in the module shop_module."""

    def library(self, name: str) -> str | None:
        """Return the module behind a plugin's name."""
        return "shop_module" if name == "shop-queue" else None


@pytest.fixture(autouse=True)
def shop() -> Iterator[types.ModuleType]:
    """A module that is in memory already."""

    class Queue:
        @staticmethod
        def drain(arg: Any) -> str:
            return f"drained {arg}"

    def refuse(name: str) -> Any:
        if name == "lazy":
            raise ZeroDivisionError("in __getattr__")
        raise AttributeError(f"no {name} here")

    shop: Any = types.ModuleType("shop_module")
    shop.Queue = Queue
    shop.drain = Queue.drain
    shop.two = lambda a, b: None
    shop.flexible = lambda *args, **keys: None
    shop.defaulted = lambda arg=None, other=2: None
    shop.number = 5
    shop.__getattr__ = refuse
    sys.modules["shop_module"] = shop
    yield shop
    del sys.modules["shop_module"]


@pytest.mark.parametrize("library", ["shop_module", "shop-queue"])
@pytest.mark.parametrize("function", ["drain", "Queue.drain"])
def test_finds_the_function(library: str, function: str) -> None:
    """C10: a library is a loaded plugin's name or a module; a function may be inside something."""
    assert resolve(library, function, Loaded())(1) == "drained 1"


@pytest.mark.parametrize("function", ["flexible", "defaulted"])
def test_one_argument_must_be_possible(function: str) -> None:
    """C11: what can be called with one argument is a worker's function."""
    assert callable(resolve("shop_module", function, Loaded()))


@pytest.mark.parametrize(
    ("library", "function", "primary"),
    [
        ("shop_module", "nothing", 'could not find function "nothing" in library "shop_module"'),
        ("shop-queue", "Queue.nothing", 'could not find function "Queue.nothing" in library "shop-queue"'),
        ("shop_module", "number", 'could not find function "number" in library "shop_module"'),
        ("shop_module", "lazy", 'could not find function "lazy" in library "shop_module"'),
        ("bgworker", "main", 'could not find function "main" in library "bgworker"'),
        ("bgworker", "__import__", 'could not find function "__import__" in library "bgworker"'),
        ("shop_module", "two", 'could not call function "two" in library "shop_module": it does not take one argument'),
        ("no_such_module_at_all", "f", "could not load library \"no_such_module_at_all\": No module named 'no_such_module_at_all'"),
    ],
)
def test_names_both_in_every_failure(library: str, function: str, primary: str) -> None:
    """C10: each failure is one line that names what was looked for; the built-ins are a fixed table."""
    with pytest.raises(PluginError) as caught:
        resolve(library, function, Loaded())
    assert caught.value.message_primary == primary


def test_builtin_library_leads_to_the_launcher() -> None:
    """C10: "bgworker" names the host's own functions."""
    assert resolve("bgworker", "launcher_main").__module__ == "bgworker._launcher"
