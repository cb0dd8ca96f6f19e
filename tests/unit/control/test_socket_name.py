"""_control/socket_name.py: the socket's name is made, kept and made again, and nothing of anybody else's is touched."""

from __future__ import annotations

import os
import select
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from bgworker import _inotify
from bgworker._control.socket_name import RETRY_INTERVAL, SocketName
from bgworker._host.data_directory import make_run_directory
from bgworker.errors import ConfigurationError


class Place:
    """A data directory with a socket's name in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(mode=0o700)
        make_run_directory(str(path), None)
        self.log: list[tuple[str, str]] = []
        self.name = self.bind()

    @property
    def socket(self) -> Path:
        """Where the socket is."""
        return self.path / "run" / "control.sock"

    def bind(self) -> SocketName:
        """Take the name, as a host that starts does."""
        return SocketName(
            str(self.path), None, lambda: make_run_directory(str(self.path), None), lambda *entry: self.log.append(entry[:2])
        )

    def is_told(self) -> bool:
        """Whether the kernel says within 20 s that something of the name has changed."""
        return bool(select.select([self.name.fileno()], [], [], 20)[0]) and self.name.has_changed()

    def said(self) -> str:
        """Return what was logged last."""
        return self.log[-1][1]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "data")
    yield place
    place.name.listener.close()
    place.name.close()


def is_answered(path: Path) -> bool:
    """Whether somebody listens behind the name."""
    with socket.socket(socket.AF_UNIX) as caller:
        return caller.connect_ex(str(path)) == 0


def renew(place: Place) -> bool:
    """Make the name again as the server does, which closes the old listener itself."""
    old = place.name.listener
    if not place.name.renew(100.0):
        return False
    old.close()
    return True


def test_name_is_for_its_owner_alone(place: Place) -> None:
    """The name is 0600 from its first moment on, in a directory that nobody else can list."""
    assert stat.S_IMODE(place.socket.lstat().st_mode) == 0o600
    assert stat.S_IMODE(place.socket.parent.lstat().st_mode) & 0o066 == 0
    assert not renew(place)
    assert place.log == []


@pytest.mark.parametrize("loss", ["socket", "moved", "directory", "directory moved"])
def test_lost_name_is_told_and_made_again(place: Place, loss: str) -> None:
    """T52: whatever way the name goes, the kernel tells, and it is made again with its permissions."""
    match loss:
        case "socket":
            place.socket.unlink()
        case "moved":
            place.socket.rename(place.path / "away")
        case "directory":
            place.socket.unlink()
            place.socket.parent.rmdir()
        case _:
            place.socket.parent.rename(place.path / "away")
    assert place.is_told()
    assert renew(place)
    assert is_answered(place.socket)
    assert stat.S_IMODE(place.socket.lstat().st_mode) == 0o600
    assert stat.S_IMODE(place.socket.parent.lstat().st_mode) & 0o066 == 0
    assert place.log == [("LOG", f'control socket "{place.socket}" was removed and is made again')]
    # The watch has moved along: it works a second time.
    select.select([place.name.fileno()], [], [], 20)
    place.name.has_changed()
    place.socket.unlink()
    assert place.is_told()
    assert renew(place)


@pytest.mark.parametrize("kind", ["file", "directory", "link", "dangling link", "socket", "run is a link", "run is a file"])
def test_nothing_of_others_is_replaced(place: Place, tmp_path: Path, kind: str) -> None:
    """T50: what has taken the name's place stays, is told of once, and the name comes back when it has gone."""
    (tmp_path / "precious").mkdir()
    other = socket.socket(socket.AF_UNIX)
    place.socket.unlink()
    trap = place.socket
    if kind.startswith("run"):
        place.socket.parent.rmdir()
        trap = place.socket.parent
    match kind:
        case "file" | "run is a file":
            trap.write_text("precious")
        case "directory":
            trap.mkdir()
        case "link" | "run is a link":
            trap.symlink_to(tmp_path / "precious")
        case "dangling link":
            trap.symlink_to(tmp_path / "nothing")
        case _:
            other.bind(str(trap))
    before = trap.lstat().st_ino
    try:
        assert place.is_told()
        assert not renew(place)
        assert not renew(place)
        assert (trap.lstat().st_ino, place.name.retry_at) == (before, None)
        assert not (tmp_path / "nothing").exists()
        assert not list((tmp_path / "precious").iterdir())
        assert [level for level, _ in place.log] == ["WARNING"], "said once"
        assert place.said().startswith("the control socket is gone: could not ")
        trap.rename(tmp_path / "moved away")
        assert place.is_told()
        assert renew(place)
        assert is_answered(place.socket)
    finally:
        other.close()


def test_replaced_name_is_left_at_the_end(place: Place) -> None:
    """T51: a host that ends removes its own socket and not one that somebody else has put there."""
    place.socket.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(place.socket))
        other.listen()
        second = place.name
        second.listener.close()
        assert not second.is_there()
        place.name.close()
        assert is_answered(place.socket)
        place.socket.unlink()
    place.name = place.bind()


def test_live_socket_is_not_taken(place: Place) -> None:
    """T51: a name behind which somebody listens is not a dead host's, whatever the lock says; a dead one's is replaced."""
    with pytest.raises(ConfigurationError, match="another host answers on control socket"):
        place.bind()
    assert is_answered(place.socket)
    place.name.listener.close()
    successor = place.bind()
    assert is_answered(place.socket)
    assert not place.name.is_there()
    place.name.close()
    place.name = successor
    assert is_answered(place.socket)


def test_data_directory_that_is_gone_is_not_made_again(place: Place) -> None:
    """Without its data directory, whose locks are gone with it, a host does not begin a new one."""
    place.path.rename(place.path.parent / "elsewhere")
    assert not renew(place)
    (place.path.parent / "elsewhere" / "run" / "control.sock").unlink()
    assert not renew(place)
    assert not place.path.exists()
    assert place.said() == f'the control socket is gone: data directory "{place.path}" is gone'


def test_refusal_of_the_kernel_is_a_time_to_try_again(place: Place) -> None:
    """A name that cannot be made now (no descriptor, a full disk) is tried again later, without being asked."""
    import resource

    place.socket.unlink()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.dup(0)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe, hard))
    try:
        assert not renew(place)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert place.name.retry_at == 100.0 + RETRY_INTERVAL
    assert "Too many open files" in place.said()
    assert renew(place)
    assert place.name.retry_at is None


def test_system_without_inotify_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel does not tell, the log says that a reload is what brings the socket back; and it does."""

    def refused() -> _inotify.NameWatch:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("bgworker._control.socket_name.NameWatch", refused)
    place = Place(tmp_path / "data")
    assert place.name.fileno() == -1
    assert place.log == [("LOG", "the place of the control socket is not watched: Too many open files")]
    assert not place.name.has_changed()
    place.socket.unlink()
    assert renew(place)
    place.name.close()


def test_path_longer_than_the_kernel_takes(tmp_path: Path) -> None:
    """T50: a data directory whose path is longer than sun_path has room for works as any other."""
    directory = tmp_path / ("d" * 120)
    place = Place(directory)
    assert len(str(place.socket)) > 107
    place.socket.unlink()
    assert renew(place)
    place.name.close()
