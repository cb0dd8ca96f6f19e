"""docs/security.md against the tests that it names, and rules of the source that it states."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "host" / "bgworker"

#: Modules that make code or objects out of somebody's bytes, and built-in functions that do.
FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "code", "codeop"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}


def points() -> list[list[str]]:
    """Return the rows of the table "Point by point", each as its cells."""
    text = (ROOT / "docs" / "security.md").read_text().partition("## Point by point")[2]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return rows[1:]


def trees() -> Iterator[tuple[Path, ast.Module]]:
    """Give each file of the source, parsed."""
    for path in SOURCE.rglob("*.py"):
        yield path, ast.parse(path.read_text())


def defined(path: Path) -> set[str]:
    """Return the tests of a file, those of classes as Class::test."""
    tree = ast.parse(path.read_text())
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return names


def test_each_point_has_a_test_or_a_reason() -> None:
    """Every point of docs/security.md names a test that exists, or says why there is none."""
    rows = points()
    assert len(rows) > 20
    for point, *rest in rows:
        named = re.findall(r"`(tests/[^`]+)`", " ".join(rest))
        assert named or rest[0].startswith("Reason: "), f"{point}: no test and no reason"
        for name in named:
            path, _, function = name.partition("::")
            assert (ROOT / path).is_file(), f"{point}: {path} does not exist"
            assert not function or function in defined(ROOT / path), f"{point}: {name} does not exist"


def test_no_abstract_socket() -> None:
    """No address of the source begins with a zero byte, and no format string puts one there."""
    for path, tree in trees():
        for node in ast.walk(tree):
            if (
                not isinstance(node, ast.Call)
                or not isinstance(node.func, ast.Attribute)
                or node.func.attr not in ("bind", "connect")
            ):
                continue
            for constant in (each.value for argument in node.args for each in ast.walk(argument) if isinstance(each, ast.Constant)):
                text = constant.decode("latin-1") if isinstance(constant, bytes) else str(constant)
                assert "\0" not in text, f"{path}:{node.lineno}"


def test_nothing_is_unpickled_or_evaluated() -> None:
    """No room imports what makes objects out of bytes, or calls what makes code out of text."""
    for path, tree in trees():
        for node in ast.walk(tree):
            names: set[str] = set()
            if isinstance(node, ast.Import):
                names = {alias.name.partition(".")[0] for alias in node.names} & FORBIDDEN_MODULES
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = {node.module.partition(".")[0]} & FORBIDDEN_MODULES
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                names = {node.func.id} & FORBIDDEN_CALLS
            elif isinstance(node, ast.keyword) and node.arg == "shell":
                names = {"shell="}
            assert not names, f"{path}:{getattr(node, 'lineno', 0)}: {names}"
