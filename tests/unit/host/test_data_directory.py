"""_host/data_directory.py: what is made is ours alone, and a place that somebody else could change is refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from bgworker._host.data_directory import HostLocks, prepare
from bgworker.errors import ConfigurationError

PLACES = ["", "run", "log", "log/workers"]


@pytest.mark.parametrize("mask", [0o000, 0o077, 0o777])
def test_directories_are_ours_alone(tmp_path: Path, mask: int) -> None:
    """Whatever the umask, nobody else can list or change one of them; as root others can pass through two."""
    data = tmp_path / "data"
    previous = os.umask(mask)
    try:
        prepare(str(data))
    finally:
        os.umask(previous)
    passage = 0o711 if os.geteuid() == 0 else 0o700
    assert {name: stat.S_IMODE((data / name).stat().st_mode) for name in PLACES} == {
        "": passage, "run": passage, "log": 0o700, "log/workers": 0o700
    }  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("fault", ["link", "file", "writable", "foreign"])
def test_place_that_is_not_ours_is_refused(tmp_path: Path, place: str, fault: str) -> None:
    """T50: a symbolic link, a file, a directory that others may write to, or somebody else's, is named and left as it is."""
    data = tmp_path / "data"
    prepare(str(data))
    target = data / place
    expected = {"link": "it is a symbolic link", "file": "it is not a directory", "writable": "others may write to it"}
    if fault in ("link", "file"):
        target.rename(tmp_path / "moved")
        if fault == "link":
            target.symlink_to(tmp_path / "moved")
        else:
            target.write_text("precious")
    elif fault == "writable":
        target.chmod(0o722)
    elif os.geteuid() == 0:
        os.chown(target, 65534, 65534)
    else:
        pytest.skip("only root can give a directory away")
    with pytest.raises(ConfigurationError, match=expected.get(fault, "it belongs to user 65534")):
        prepare(str(data))
    if fault == "writable":
        assert stat.S_IMODE(target.stat().st_mode) == 0o722


@pytest.mark.parametrize("name", ["host.lock", "workers.lock"])
def test_lock_that_is_a_link_is_not_followed(tmp_path: Path, name: str) -> None:
    """A link in the place of a lock would have the host write into a file of somebody's choice."""
    prepare(str(tmp_path / "data"))
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "data" / name).symlink_to(tmp_path / "precious")
    with pytest.raises(ConfigurationError, match="could not create"):
        HostLocks(str(tmp_path / "data"), {"pid": 1})
    assert (tmp_path / "precious").read_text() == "precious"
