"""The client face: what it exports, and what it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bgworker

SOURCE = ast.parse(Path(bgworker.__file__).read_text())


def _loaded_by(statement: str) -> set[str]:
    """Return the modules that a statement loads into a fresh interpreter."""
    script = f"import sys\nbefore = set(sys.modules)\n{statement}\nprint(*set(sys.modules) - before)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(result.stdout.split())


def test_import_does_no_work() -> None:
    """Importing bgworker loads itself and its version, nothing else."""
    assert _loaded_by("import bgworker") == {"bgworker", "bgworker._version"}


def test_client_is_cheap() -> None:
    """The client, as ``status --json`` needs it, loads nothing dear."""
    loaded = _loaded_by("from bgworker._control.client import connect")
    dear = {
        "asyncio",
        "bgworker._spec",
        "click",
        "concurrent.futures",
        "dataclasses",
        "datetime",
        "inspect",
        "logging",
        "msgspec",
        "pluggy",
        "psycopg",
        "rich",
        "signal",
        "subprocess",
        "tempfile",
        "threading",
    }
    assert not loaded & dear


def test_every_name_is_there() -> None:
    """Every exported name can be fetched, is listed by dir(), and is fetched once."""
    for name in bgworker.__all__:
        assert getattr(bgworker, name) is not None
        assert name in dir(bgworker)
        assert name in vars(bgworker)


def test_lists_agree() -> None:
    """What type checkers see, what __all__ says and what is fetched at run time are the same names from the same rooms."""
    checked: dict[str, str] = {}
    for node in ast.walk(SOURCE):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("bgworker."):
            checked |= {alias.name: node.module for alias in node.names}
    del checked["__version__"]
    fetched = {name: f"bgworker.{room}" for room, names in vars(bgworker)["_ROOMS"].items() for name in names}
    assert fetched == checked
    assert {*fetched, "__version__"} == set(bgworker.__all__)


def test_unknown_name() -> None:
    """A name that is not there is an AttributeError, as hasattr and typos need it."""
    with pytest.raises(AttributeError, match="no attribute 'conect'"):
        bgworker.conect  # type: ignore[attr-defined]  # noqa: B018 - the look is the test
    assert not hasattr(bgworker, "__wrapped__")


def test_other_faces_are_attributes() -> None:
    """Another face is reachable after ``import bgworker`` alone."""
    assert "bgworker.errors" in _loaded_by("import bgworker; bgworker.errors")
