"""docs/reliability.md: every case is in its table, and the tests that it names exist and say that they are its tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: The numbers of the cases. A number is never given again; those between them belong to cases that were merged into others.
CASES = [
    1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 14, 15, 16, 17, 18, 20, 21, 23, 24, 26, 28, 30, 31, 33, 34, 35, 36, 37, 39, 40, 41, 43,
    44, 45, 46, 48, 49, 50, 51, 52, 53, 54, 55, 56, 58, 59, 61, 62, 63, 64, 65, 67, 68, 71, 72, 73, 74, 75, 78, 79, 80,
    81, 82, 83,
]  # fmt: skip


def rows() -> dict[str, list[str]]:
    """Return the tests that the document names for each case."""
    text = (ROOT / "docs" / "reliability.md").read_text()
    found = {}
    for number, tests in re.findall(r"^\| (T\d\d) \|.*\| ([^|]*) \|$", text, re.MULTILINE):
        assert number not in found, f"{number} is there twice"
        found[number] = re.findall(r"`([^`]+)`", tests)
    return found


def docstrings(path: Path) -> dict[str, str]:
    """Return the docstring of each test function of a file."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.name: ast.get_docstring(node) or "" for node in nodes if isinstance(node, ast.FunctionDef)}


def test_table_is_complete() -> None:
    """Each case has one row, and no row is of a case that nobody knows."""
    assert sorted(rows()) == [f"T{number:02}" for number in CASES]


@pytest.mark.parametrize("number", [f"T{number:02}" for number in CASES])
def test_case_has_its_tests(number: str) -> None:
    """What a row names is a test that exists, and whose docstring has the number of the case."""
    tests = rows()[number]
    assert tests, f"{number} has no test"
    for test in tests:
        path, _, name = test.partition("::")
        assert (ROOT / path).is_file(), f"{path} does not exist"
        found = docstrings(ROOT / path)
        assert name in found, f"{test} does not exist"
        assert number in found[name], f"{test} does not say {number}"
