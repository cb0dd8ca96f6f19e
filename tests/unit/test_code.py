"""_code.py: which code a worker runs, and whether what is installed is another."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from bgworker import _code, _version


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory on sys.path with a package and its distribution's metadata."""
    package = tmp_path / "shop_code"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("1 / 0  # nobody imports this\n")
    (package / "deep" / "jobs.py").write_text("")
    (tmp_path / "shop_code-1.0.dist-info").mkdir()
    (tmp_path / "plain_code.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def touch(path: Path) -> None:
    """Make a file a second younger."""
    at = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(at, at))


def test_package_and_its_version(place: Path) -> None:
    """The top package counts, by whatever module it is named; nothing is imported."""
    code = _code.describe("shop_code.deep.jobs")
    assert (code["distribution"], code["version"], code["path"]) == ("shop_code", "1.0", str(place / "shop_code"))
    assert "shop_code" not in sys.modules
    assert _code.describe("shop_code", "Shop", "2.0")["version"] == "2.0"


def test_every_file_of_a_package_counts(place: Path) -> None:
    """A changed module deep in it, a new one, a removed one; compiled leftovers do not count."""
    marks = [_code.mark(str(place / "shop_code"))]
    for change in (
        lambda: touch(place / "shop_code" / "deep" / "jobs.py"),
        lambda: (place / "shop_code" / "more.py").write_text(""),
        lambda: (place / "shop_code" / "more.py").unlink(),
    ):
        change()
        marks.append(_code.mark(str(place / "shop_code")))
    assert marks[0] != marks[1] != marks[2] != marks[3]
    (place / "shop_code" / "__pycache__").mkdir()
    (place / "shop_code" / "__pycache__" / "x.py").write_text("")
    assert _code.mark(str(place / "shop_code")) == marks[3]


def test_plain_module(place: Path) -> None:
    """It is its file, and of no distribution."""
    code = _code.describe("plain_code")
    assert (code["distribution"], code["path"]) == ("", str(place / "plain_code.py"))
    assert _code.in_words(code) == "plain_code.py, its files have changed"


def test_what_is_not_there(tmp_path: Path) -> None:
    """No place, no mark; and no worker is called old for it."""
    assert _code.describe("no_such_module_anywhere") == {}
    assert _code.describe("sys") == {}
    assert _code.mark(str(tmp_path / "gone")) == ""
    status: dict[str, Any] = {"slots": [{"config": {"code": {"path": str(tmp_path / "gone"), "files": "12"}}}, {"config": {}}, {}]}
    assert _code.note_old(status) == []


@pytest.mark.parametrize(
    ("worker", "host", "is_old"),
    [
        ("0.0.9", _version.__version__, True),
        ("99.0", _version.__version__, True),  # the host has gone back to an older one
        (_version.__version__, "99.0", False),  # born of what is installed, and the host is not executed anew yet
        ("99.0", "99.0", False),
        ("", "99.0", False),  # a program, or of a version that did not say
    ],
)
def test_bgworker_itself(worker: str, host: str, is_old: bool) -> None:
    """A worker with another bgworker in memory than the host's runs old code, unless a restart would change nothing."""
    code: dict[str, Any] = {"bgworker": worker} if worker else {}
    slot = {"config": {"code": code}}
    assert _code.note_old({"host": {"version": host}, "slots": [slot]}) == ([slot] if is_old else [])
    assert _code.is_old(slot) is is_old
    assert code.get("host_bgworker") == (host if is_old else None)
    if is_old:
        assert _code.in_words(code) == f"bgworker {worker}, the host {host}"


def test_old_library_in_an_old_worker(place: Path) -> None:
    """Both are said."""
    code: dict[str, Any] = {**_code.describe("shop_code"), "bgworker": "0.0.9"}
    (place / "shop_code-1.0.dist-info").rename(place / "shop_code-1.1.dist-info")
    touch(place / "shop_code" / "__init__.py")
    assert _code.note_old({"host": {"version": _version.__version__}, "slots": [{"config": {"code": code}}]})
    assert _code.in_words(code) == f"shop_code 1.0, 1.1 is installed; bgworker 0.0.9, the host {_version.__version__}"


def test_old_code_is_named_with_both_versions(place: Path) -> None:
    """After an installation the version beside the package is another one."""
    code: dict[str, Any] = _code.describe("shop_code")
    status = {"slots": [{"config": {"code": code}}]}
    assert _code.note_old(status) == []
    assert code["is_old"] is False
    (place / "shop_code-1.0.dist-info").rename(place / "shop_code-1.1.dist-info")
    touch(place / "shop_code" / "__init__.py")
    assert _code.note_old(status) == status["slots"]
    assert _code.in_words(code) == "shop_code 1.0, 1.1 is installed"
