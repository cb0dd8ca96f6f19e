"""Where workers.toml and the data directory are looked for (design section 3)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bgworker._config.locate import Location, beside, data_directory_in, locate


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A current directory with nothing in it."""
    monkeypatch.chdir(tmp_path)
    return os.getcwd()


def write(directory: str, text: str, name: str = "workers.toml") -> str:
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def parts(location: Location) -> tuple[str | None, str]:
    return location.config_path, location.data_directory


def test_nothing_named_and_no_file(here: str) -> None:
    """Without a file and without a word, the data directory is data in the current directory."""
    assert parts(locate(None, None, {})) == (None, f"{here}/data")


def test_file_in_the_current_directory(here: str) -> None:
    """workers.toml of the current directory is found by itself, data lies beside it."""
    path = write(here, "")
    assert parts(locate(None, None, {})) == (path, f"{here}/data")


def test_the_first_that_names_the_data_directory_wins(here: str) -> None:
    """-D, then BGWORKER_DATA, then STATE_DIRECTORY, then [host] data_directory, then data."""
    write(here, '[host]\ndata_directory = "/from/file"\n')
    environ = {"BGWORKER_DATA": "/from/variable", "STATE_DIRECTORY": "/from/systemd"}
    assert locate(None, "/from/option", environ).data_directory == "/from/option"
    assert locate(None, None, environ).data_directory == "/from/variable"
    assert locate(None, None, {"STATE_DIRECTORY": "/from/systemd"}).data_directory == "/from/systemd"
    assert locate(None, None, {}).data_directory == "/from/file"
    write(here, "[host]\n")
    assert locate(None, None, {}).data_directory == f"{here}/data"


def test_the_first_that_names_the_file_wins(here: str) -> None:
    """-c, then BGWORKER_CONFIG, then ./workers.toml."""
    write(here, "")
    environ = {"BGWORKER_CONFIG": "variable/w.toml"}
    assert locate("option/w.toml", None, environ).config_path == f"{here}/option/w.toml"
    assert locate(None, None, environ).config_path == f"{here}/variable/w.toml"
    assert locate(None, None, {}).config_path == f"{here}/workers.toml"


@pytest.mark.parametrize(
    ("option", "environ"),
    [("state", {}), (None, {"BGWORKER_DATA": "state"}), (None, {"STATE_DIRECTORY": "state"}), (None, {})],
    ids=["option", "variable", "systemd", "file"],
)
def test_relative_means_relative_to_the_file(here: str, option: str | None, environ: dict[str, str]) -> None:
    """A relative data directory lies beside workers.toml, whoever names it and wherever the command is run."""
    write(f"{here}/shop", '[host]\ndata_directory = "state"\n')
    assert locate("shop/workers.toml", option, environ).data_directory == f"{here}/shop/state"


def test_named_file_that_is_missing(here: str) -> None:
    """A named file keeps its name although it is missing, so that whoever needs it can say so."""
    assert parts(locate("shop/workers.toml", None, {})) == (f"{here}/shop/workers.toml", f"{here}/shop/data")


def test_empty_variables_count_as_unset(here: str) -> None:
    """An empty variable is how shells say that there is none."""
    assert parts(locate(None, None, {"BGWORKER_CONFIG": "", "BGWORKER_DATA": "", "STATE_DIRECTORY": ""})) == (None, f"{here}/data")


def test_systemd_may_name_several_directories(here: str) -> None:
    """Of several StateDirectory= the first one is taken."""
    assert locate(None, None, {"STATE_DIRECTORY": "/var/lib/shop:/var/lib/other"}).data_directory == "/var/lib/shop"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[host]\ndata_directory = "d"\n[[worker]]\nbgw_name = \n', "d"),
        ('# host\n\n[ host ] # ours\nlog = "both"\ndata_directory = "d"\n[[worker\n', "d"),
        ('host.data_directory = "d"\n', "d"),
        ('host = { data_directory = "d" }\n', "d"),
        ('["host"]\ndata_directory = "d"\n', "d"),
        ('[[worker]]\nbgw_extra = """\n[host]\ndata_directory = "no"\n"""\n[host]\ndata_directory = "d"\n', "d"),
        ('[host]\npython_path = [\n[],\n]\ndata_directory = "d"\n[settings.x]\n', "d"),
        ('[host]\nlog = "both"\n[settings.x]\ndata_directory = "no"\n', None),
        ('[hostel]\ndata_directory = "no"\n[host]\n', None),
        ('# data_directory = "no"\n[host]\n', None),
        ("[host]\ndata_directory = 5\n", None),
        ('[host]\ndata_directory = ""\n', None),
        ('[host]\ndata_directory = "a\\u0000b"\n', None),
        ('host = 5\n# data_directory = "no"\n', None),
        ('data_directory = "no"\n', None),
        ('[host\ndata_directory = "no"\n', None),
        ("data_directory = " + "[" * 5000, None),
    ],
)
def test_data_directory_of_a_file(tmp_path: Path, text: str, expected: str | None) -> None:
    """The value is found wherever TOML allows it, also above a mistake, and never where it means something else."""
    assert data_directory_in(write(str(tmp_path), text)) == expected


def test_what_is_no_readable_file(tmp_path: Path) -> None:
    """A directory, a FIFO that nobody writes to, bytes that are no text: nothing is refused, nothing waits."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "bytes").write_bytes(b'[host]\ndata_directory = "\xff"\n')
    for name in (".", "fifo", "bytes", "missing"):
        assert data_directory_in(str(tmp_path / name)) is None


def test_byte_order_mark(tmp_path: Path) -> None:
    """A byte order mark is no part of the text."""
    (tmp_path / "w.toml").write_bytes(b'\xef\xbb\xbf[host]\ndata_directory = "d"\n')
    assert data_directory_in(str(tmp_path / "w.toml")) == "d"


def test_beside(here: str) -> None:
    """Paths come out absolute and without dots."""
    assert beside("shop/workers.toml", "../x/./y") == f"{here}/x/y"
    assert beside("/srv/shop/workers.toml", "/abs") == "/abs"
    assert beside("/srv/shop/workers.toml", ".") == "/srv/shop"


def test_cheap_to_import(here: str) -> None:
    """Locating without a file imports neither tomli nor anything that `status --json` cannot afford."""
    code = (
        "import sys; before = set(sys.modules); from bgworker._config.locate import locate; locate(None, None, {}); "
        "print(*sorted(set(sys.modules) - before))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(result.stdout.split())
    assert "bgworker._config.locate" in loaded
    assert not {name for name in loaded if name.partition(".")[0] in ("tomli", "msgspec", "typing", "re", "dataclasses")}
