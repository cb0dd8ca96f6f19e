"""The room as a whole: nothing in it can touch the world, and its imports run one way."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import bgworker._core

FILES = sorted(Path(bgworker._core.__file__).parent.glob("*.py"))
#: The rooms in an order in which each imports only such as stand before it.
UPWARDS = [
    *("states", "timetable", "exits", "record", "scope", "reasons", "effects", "codec", "table", "actions", "restart"),
    *("order", "conditions", "agenda", "roster", "wishes", "runs", "registrations", "shutdown", "crashes", "ends", "timeouts"),
    "slots",
]
#: What the machine may be made of. os, socket, signal, time, logging and pluggy are what it must never see.
ALLOWED = {
    "__future__",
    "collections",
    "collections.abc",
    "dataclasses",
    "enum",
    "functools",
    "heapq",
    "itertools",
    "types",
    "typing",
    "bgworker._spec",
    "bgworker.errors",
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_core_imports_nothing_that_acts(path: Path) -> None:
    """C40: the machine imports no plugin code, no clock, no signals and no I/O; only pure modules, ours or the library's."""
    tree = ast.parse(path.read_text())
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    # `from bgworker._core import reasons` names the package itself.
    assert {name for name in imported if not name.startswith("bgworker._core")} <= ALLOWED
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") in ("open", "print", "input")]


def imported_rooms(path: Path) -> set[str]:
    """Return the rooms of the core that a file imports, for its annotations alone or not."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bgworker._core"):
            room = (node.module or "").removeprefix("bgworker._core").removeprefix(".")
            found |= {room} if room else {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_imports_run_one_way(path: Path) -> None:
    """No room of the core knows one that is built on it."""
    if path.stem == "__init__":
        assert not imported_rooms(path)
    else:
        assert imported_rooms(path) <= set(UPWARDS[: UPWARDS.index(path.stem)])


def test_files_were_found() -> None:
    """The import test looks at the real room."""
    assert {"states", "table", "effects", "restart", "slots"} <= {path.stem for path in FILES}
