"""As whom PostgreSQL runs, and how it reaches what it needs when permissions are against it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from tests.integration.database.driving import HERE, IS_ROOT, SERVICE_USER, FakeHost, is_running, wait_until
from tests.integration.database.test_embedded import fetch

from bgworker._database.binaries import find_binaries

needs_root = pytest.mark.skipif(not IS_ROOT, reason="only a host that runs as root changes its user")
pytestmark = needs_root


def modes_above(path: Path) -> dict[str, int]:
    """Return the modes of a path and of everything above it."""
    return {str(place): place.lstat().st_mode for place in [path, *path.parents]}


@pytest.fixture
def closed_directory() -> Iterator[Path]:
    """A directory that only root can enter."""
    with tempfile.TemporaryDirectory(prefix="bgwdb", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def closed_wheel(closed_directory: Path) -> Path:
    """A copy of the wheel that only root can reach; the directory to put on PYTHONPATH."""
    site = closed_directory / "site"
    site.mkdir()
    for tree in find_binaries().trees:
        subprocess.run(["cp", "-a", tree, str(site)], check=True)
    return site


def data_owner(host: FakeHost) -> str:
    """Return who owns the data directory of the server."""
    return (host.data_directory / "pg").owner()


def test_data_below_a_closed_directory(make_host: Callable[..., FakeHost], closed_directory: Path) -> None:
    """A data directory below one that only root can enter works, is no more open afterwards, and keeps its paths."""
    data = closed_directory / "data"
    data.mkdir(mode=0o711)
    before = modes_above(data)
    host = make_host(data)
    host.embedded(name="shop")
    host.phase("recovery_finished")
    assert fetch(host, "SELECT current_setting('data_directory')") == [(os.path.realpath(data / "pg"),)]
    assert data_owner(host) == SERVICE_USER
    assert modes_above(data) == before
    host.stop()
    mark = host.mark()
    host.embedded(name="shop")
    host.phase("recovery_finished", mark)
    # Crash recovery too, and adoption.
    os.kill(host.postgres_pid, 9)
    host.phase("unreachable", mark)
    mark = host.mark()
    host.phase("recovery_finished", mark)
    os.kill(host.database_pid, 9)
    mark = host.mark()
    host.spawn()
    host.configure_embedded(postgres_pid=host.postgres_pid, name="shop")
    host.phase("recovery_finished", mark)
    assert modes_above(data) == before


def test_programs_below_a_closed_directory(make_host: Callable[..., FakeHost], closed_wheel: Path, closed_directory: Path) -> None:
    """An environment that only root can reach works as well, its libraries and share files included."""
    before = modes_above(closed_wheel)
    host = make_host(PYTHONPATH=str(closed_wheel))
    host.embedded()
    host.phase("recovery_finished")
    program = os.readlink(f"/proc/{host.postgres_pid}/exe")
    assert program.startswith(str(closed_directory))
    # plpgsql comes from its libraries, a time zone from its share directory: both are looked up while it runs.
    with host.connect() as connection:
        connection.execute("DO $$ BEGIN PERFORM 1; END $$")
    assert fetch(host, "SELECT extract(hour FROM timestamptz '2026-07-01 00:00Z' AT TIME ZONE 'Asia/Tokyo')::int") == [(9,)]
    assert modes_above(closed_wheel) == before
    assert not (set(os.listdir(closed_directory)) - {"site"})


@pytest.mark.slow
def test_both_below_closed_directories(make_host: Callable[..., FakeHost], closed_wheel: Path, closed_directory: Path) -> None:
    """Programs and data below the same closed directory: one cover serves both."""
    data = closed_directory / "deeper" / "data"
    data.parent.mkdir(mode=0o700)
    host = make_host(data, PYTHONPATH=str(closed_wheel))
    host.embedded()
    host.phase("recovery_finished")
    # Nothing but the way is there for the server, and it cannot even list that.
    seen = Path(f"/proc/{host.postgres_pid}/root")
    assert sorted(os.listdir(f"{seen}{closed_directory}")) == ["deeper", "site"]
    assert os.listdir(f"{seen}{data}") == ["pg"]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        fetch(host, f"SELECT pg_ls_dir('{closed_directory}')")
    # And nothing of it is visible outside.
    assert sorted(os.listdir(data)) == ["log", "pg", "run"]


@pytest.mark.slow
def test_link_to_programs_in_an_open_place(make_host: Callable[..., FakeHost], closed_directory: Path) -> None:
    """A closed path that is only a link to an open one needs no namespace."""
    package = Path(find_binaries().trees[0])
    if subprocess.run(["setpriv", "--reuid=65534", "--clear-groups", "test", "-x", str(package)], check=False).returncode:
        pytest.skip("the installed wheel itself cannot be reached by everybody")
    (closed_directory / package.name).symlink_to(package)
    host = make_host(PYTHONPATH=str(closed_directory))
    host.embedded()
    host.phase("recovery_finished")
    assert os.stat(f"/proc/{host.postgres_pid}/ns/mnt").st_ino == os.stat(f"/proc/{host.database_pid}/ns/mnt").st_ino


def test_refused_namespace_is_one_clear_error(make_host: Callable[..., FakeHost], closed_directory: Path) -> None:
    """Where the kernel allows no namespace, as in most containers, the error says who cannot reach what, and what to do."""
    capsh = shutil.which("capsh", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if capsh is None:
        pytest.skip("capsh (libcap2-bin) is not installed")
    data = closed_directory / "data"
    host = make_host(data, prefix=[capsh, "--drop=cap_sys_admin", "--", "-c", 'exec "$@"', "sh"])
    host.embedded()
    detail = host.phase("unreachable", containing="cannot reach")["detail"]
    assert f'user "{SERVICE_USER}"' in detail
    assert str(closed_directory) in detail
    assert "hint: Put the data directory and the environment where that user can reach them" in detail
    assert not any(name.startswith("pg") for name in os.listdir(data))
    host.stop()


def test_host_that_may_not_change_its_user(make_host: Callable[..., FakeHost]) -> None:
    """A root without the right to become somebody else gets one clear error."""
    capsh = shutil.which("capsh", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if capsh is None:
        pytest.skip("capsh (libcap2-bin) is not installed")
    host = make_host(prefix=[capsh, "--drop=cap_setuid,cap_setgid", "--", "-c", 'exec "$@"', "sh"])
    host.embedded()
    host.phase("unreachable", containing="CAP_SETUID")


@pytest.mark.parametrize(("user", "expected"), [("root", "it refuses uid 0"), ("nobody-of-that-name", "there is no such user")])
def test_user_that_cannot_be_used(host: FakeHost, user: str, expected: str) -> None:
    """[database] user that is root or does not exist is one clear error, and nothing is made."""
    host.embedded(user=user)
    host.phase("unreachable", containing=expected)
    assert os.listdir(host.data_directory) == []


def test_data_directory_of_another_user_is_left_alone(running: FakeHost) -> None:
    """After a change of [database] user the directory still belongs to the old one: said, and not taken over."""
    running.stop()
    mark = running.mark()
    running.embedded(user="daemon")
    running.phase("unreachable", mark, containing='PostgreSQL would run as "daemon"')
    assert data_owner(running) == SERVICE_USER


@pytest.mark.slow
def test_default_user_is_created_and_said(make_host: Callable[..., FakeHost], open_directory: Path) -> None:
    """A root host that names no user gets the user "bgworker", made with a log line, without a home or a shell."""
    # In a copy of /etc that only this host sees.
    copy = open_directory / "etc"
    subprocess.run(["cp", "-a", "/etc", str(copy)], check=True)
    for name in ("passwd", "shadow", "group", "gshadow"):
        lines = (copy / name).read_text().splitlines(keepends=True)
        (copy / name).write_text("".join(line for line in lines if not line.startswith("bgworker:")))
    script = f'mount --bind {copy} /etc && exec "$@"'
    host = make_host(prefix=["unshare", "--mount", "sh", "-c", script, "sh"])
    host.embedded(user=None)
    host.phase("recovery_finished")
    (message,) = [message for message in host.messages("log") if "created system user" in message["message"]]
    assert message["level"] == "LOG"
    (entry,) = [line.split(":") for line in (copy / "passwd").read_text().splitlines() if line.startswith("bgworker:")]
    assert entry[5] == "/nonexistent"
    assert entry[6].endswith(("nologin", "false"))
    status = Path(f"/proc/{host.postgres_pid}/status").read_text()
    assert f"Uid:\t{entry[2]}\t{entry[2]}\t{entry[2]}\t{entry[2]}" in status
    host.stop()
    mark = host.mark()
    host.embedded(user=None)
    host.phase("recovery_finished", mark)
    assert len([message for message in host.messages("log") if "created system user" in message["message"]]) == 1


def plain_user() -> list[str]:
    """Return a prefix that runs a command as an ordinary user who can reach this interpreter."""
    return [sys.executable, "-P", str(HERE / "as_plain_user.py"), SERVICE_USER]


def test_host_that_is_not_root_runs_it_as_itself(make_host: Callable[..., FakeHost], open_directory: Path) -> None:
    """Without root: own uid, the socket inside the data directory, and the same life."""
    data = open_directory / "data"
    data.mkdir(mode=0o700)
    shutil.chown(data, SERVICE_USER)
    host = make_host(data, prefix=plain_user())
    host.embedded(user=None)
    conninfo = host.phase("recovery_finished")["conninfo"]
    assert psycopg.conninfo.conninfo_to_dict(conninfo)["host"] == str(data / "run" / "pg")
    assert data_owner(host) == SERVICE_USER
    pid = host.postgres_pid
    host.kill()
    wait_until(lambda: not is_running(pid), "the end of PostgreSQL", timeout=1.0)
    again = make_host(data, prefix=plain_user())
    again.embedded(user=None)
    again.phase("recovery_finished")
    assert again.stop() < 5


def test_host_that_is_not_root_cannot_name_another_user(make_host: Callable[..., FakeHost], open_directory: Path) -> None:
    """[database] user of a host that cannot change its user is an error that says so; its own name is fine."""
    data = open_directory / "data"
    data.mkdir(mode=0o700)
    shutil.chown(data, SERVICE_USER)
    host = make_host(data, prefix=plain_user())
    host.embedded(user="daemon")
    host.phase("unreachable", containing="the host does not run as root")
    host.stop()
    mark = host.mark()
    host.embedded(user=SERVICE_USER)
    host.phase("recovery_finished", mark)


@pytest.mark.slow
def test_long_data_directory_without_root(make_host: Callable[..., FakeHost], open_directory: Path, template: Path) -> None:
    """A path too long for a socket is no obstacle: the socket goes to a short directory, the same at each start."""
    data = open_directory / ("d" * 90)
    data.mkdir(mode=0o700)
    subprocess.run(["cp", "-a", str(template), str(data / "pg")], check=True)
    shutil.chown(data, SERVICE_USER)
    host = make_host(data, prefix=plain_user())
    host.embedded(user=None)
    url = host.phase("recovery_finished")["url"]
    assert "?host=%2Ftmp%2Fbgworker-" in url
    with host.connect():
        pass
    host.stop()
    mark = host.mark()
    host.embedded(user=None)
    assert host.phase("recovery_finished", mark)["url"] == url
