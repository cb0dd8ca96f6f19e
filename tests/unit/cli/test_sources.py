"""cli/_sources.py: which files a library is made of, and whom a change concerns."""

from __future__ import annotations

from pathlib import Path

import pytest

from bgworker.cli._sources import concerned, directories_of, files_of, syntax_problem


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files = {
        "one.py": "import shared, os, missing\n",
        "two.py": "from shop.orders import drain\n",
        "shared.py": "import deep.inner as inner\nimport one\n",
        "deep/__init__.py": "",
        "deep/inner.py": "",
        "shop/__init__.py": "",
        "shop/orders.py": "from . import tables\nfrom .deep import nothing\n",
        "shop/tables.py": "def (",
        "shop/__pycache__/tables.py": "import one",
        "shop/.hidden/x.py": "",
        "shop/data.txt": "",
        "apart.py": "",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def names(root: Path, paths: set[str]) -> set[str]:
    return {str(Path(path).relative_to(root)) for path in paths}


def test_files_of_a_library(root: Path) -> None:
    """Its own, and those of what it imports from beside it, through others and in a circle; not what is broken or hidden."""
    one = {"one.py", "shared.py", "deep/__init__.py", "deep/inner.py"}
    shop = {"shop/__init__.py", "shop/orders.py", "shop/tables.py"}
    assert names(root, files_of(str(root / "one.py"))) == one
    assert names(root, files_of(str(root / "two.py"))) == {"two.py", *shop}
    assert names(root, files_of(str(root / "shop"))) == shop
    assert names(root, directories_of(str(root / "one.py"))) == {".", "deep"}
    assert files_of(str(root / "gone.py")) == set()


def test_installed_library_is_its_own_package_alone(tmp_path: Path) -> None:
    """What lies beside it in site-packages is somebody else's."""
    site = tmp_path / "site-packages"
    site.mkdir()
    (site / "a.py").write_text("import b")
    (site / "b.py").write_text("")
    assert files_of(str(site / "a.py")) == {str(site / "a.py")}


@pytest.mark.parametrize(
    ("changed", "who"),
    [
        ("shared.py", {"1", "2"}),
        ("deep/inner.py", {"1", "2"}),
        ("shop/tables.py", {"3", "4"}),
        ("shop/new", {"4"}),
        ("shop/gone.py", {"4"}),
        ("apart.py", set()),
        ("workers.toml", set()),
    ],
)
def test_whom_a_change_concerns(root: Path, changed: str, who: set[str]) -> None:
    """Every worker whose library has the file, or had it in its package."""
    paths = {"1": str(root / "one.py"), "2": str(root / "one.py"), "3": str(root / "two.py"), "4": str(root / "shop")}
    assert concerned(paths, [str(root / changed)]) == who


def test_what_is_wrong_with_a_file(root: Path) -> None:
    """File and line, in one line; a file that is gone, or is no Python, is not broken."""
    assert syntax_problem(str(root / "one.py")) == ""
    assert syntax_problem(str(root / "gone.py")) == ""
    assert syntax_problem(str(root / "shop" / "data.txt")) == ""
    assert syntax_problem(str(root / "shop" / "tables.py")) == f'file "{root}/shop/tables.py", line 1: invalid syntax'
    (root / "nul.py").write_bytes(b"x = 1\0\n")
    assert str(root / "nul.py") in syntax_problem(str(root / "nul.py"))
