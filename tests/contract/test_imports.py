"""Imports run one way: which room may import which, as ARCHITECTURE.md draws it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "host" / "bgworker"

#: What the modules of a room must never import at run time, with the rule that says so.
FORBIDDEN: dict[str, tuple[str, ...]] = {
    # The pure rooms do no I/O and know no time.
    "errors.py": ("bgworker", "os", "socket", "time"),
    "_spec.py": ("os", "socket", "signal", "time", "logging", "pluggy", "msgspec"),
    "_core": ("os", "socket", "signal", "time", "logging", "pluggy", "msgspec", "bgworker._host", "bgworker._process"),
    "_shm/layout.py": ("os", "socket", "mmap", "time"),
    "_control/protocol.py": ("os", "socket", "time"),
    "_loop.py": ("bgworker",),
    # No plugin code and no database code in the host (C40).
    "_host": ("pluggy", "psycopg", "bgworker._plugins", "bgworker._database", "bgworker._worker", "bgworker.worker"),
    # The other processes never reach the host.
    "_loader": ("bgworker._host", "bgworker._loop", "bgworker._control.server"),
    "_worker": ("bgworker._host", "bgworker._loop", "bgworker._loader", "bgworker._control.server"),
    "_collector": ("bgworker._host", "bgworker._loop", "bgworker._plugins", "bgworker._worker", "psycopg"),
    "_database": ("bgworker._host", "bgworker._loop", "bgworker._plugins", "bgworker._worker"),
    "_process": ("bgworker._host", "bgworker._core", "bgworker._plugins"),
    "_config": ("bgworker._host", "bgworker._core", "bgworker._process"),
    "_plugins": ("bgworker._host", "bgworker._core", "bgworker._control"),
    "worker.py": ("bgworker._host", "bgworker._loop", "bgworker._loader"),
    "spi.py": ("bgworker._host", "bgworker._loop", "bgworker._loader"),
    "tui": ("bgworker._host", "bgworker._loop", "bgworker._core", "bgworker.top", "textual"),
    # The full-screen view is a client; what it needs of the command line it is handed.
    "top": ("bgworker._host", "bgworker._loop", "bgworker._core", "bgworker._worker", "bgworker._loader", "bgworker.cli"),
}


def imports(path: Path) -> set[str]:
    """Return every module that the file imports at run time, anywhere in it."""
    tree = ast.parse(path.read_text())
    typing_only = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("room", FORBIDDEN)
def test_room_imports_nothing_forbidden(room: str) -> None:
    """C40: each room keeps to its arrows; above all the host imports no plugin and no database code."""
    place = SOURCE / room
    files = [place] if place.is_file() else sorted(place.rglob("*.py"))
    assert files, f"{room} is gone: mend the table"
    for path in files:
        for name in imports(path):
            for forbidden in FORBIDDEN[room]:
                assert not f"{name}.".startswith(f"{forbidden}."), f"{path} imports {name}"


def test_every_module_says_what_it_is_for() -> None:
    """Each file opens with a docstring."""
    for path in SOURCE.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no module docstring"
