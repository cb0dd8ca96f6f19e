"""A damaged data directory, a full disk, settings that cannot be: one clear error each, nothing lost, and mending is enough."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from tests.integration.database.driving import IS_ROOT, FakeHost
from tests.integration.database.test_embedded import edit_configuration, fetch

Damage = Callable[[Path], None]


def truncate(path: Path) -> None:
    """Cut a file to nothing."""
    os.truncate(path, 0)


def scribble(path: Path) -> None:
    """Write over the middle of a file."""
    with path.open("r+b") as file:
        file.seek(64)
        file.write(b"\xff" * 64)


DAMAGES: list[tuple[str, Damage, str]] = [
    ("PG_VERSION", Path.unlink, "its file PG_VERSION is missing or empty"),
    ("global/pg_control", scribble, "incorrect checksum in control file"),
    ("PG_VERSION", truncate, "its file PG_VERSION is missing or empty"),
    ("global/pg_control", Path.unlink, "could not open file"),
    ("global/pg_control", truncate, "pg_control"),
    ("postgresql.conf", Path.unlink, "postgresql.conf"),
    ("pg_wal", shutil.rmtree, "pg_wal"),
]
#: The first two are enough for every day.
CASES = [
    pytest.param(*case, id=f"{case[0]}-{case[1].__name__}", marks=[pytest.mark.slow] if number > 1 else [])
    for number, case in enumerate(DAMAGES)
]


@pytest.mark.parametrize(("name", "damage", "expected"), CASES)
def test_damaged_data_directory(prepared: FakeHost, template: Path, name: str, damage: Damage, expected: str) -> None:
    """What is wrong is the phase's detail, with the next try; the file from a backup mends it, and no new directory is made."""
    pg = prepared.data_directory / "pg"
    damage(pg / name)
    prepared.embedded()
    detail = prepared.phase("unreachable", containing=expected)["detail"]
    assert "next try in" in detail
    prepared.phase("unreachable", containing="try 3")
    assert os.listdir(pg / "base"), "it is still the same directory"
    subprocess.run(["cp", "-a", str(template / name), str(pg / name).rpartition("/")[0]], check=True)
    prepared.phase("recovery_finished")


def test_data_directory_open_to_everybody(prepared: FakeHost) -> None:
    """Permissions that PostgreSQL refuses are its words, with its detail."""
    pg = prepared.data_directory / "pg"
    pg.chmod(0o777)
    prepared.embedded()
    detail = prepared.phase("unreachable", containing="invalid permissions")["detail"]
    assert "u=rwx (0700)" in detail
    pg.chmod(0o700)
    prepared.phase("recovery_finished")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lc_time = 'xx_XX.UTF-8'", 'invalid value for parameter "lc_time": "xx_XX.UTF-8"'),
        ("shared_preload_libraries = 'no_such_library'", 'could not access file "no_such_library"'),
        ("work_mem = lots", 'invalid value for parameter "work_mem": "lots"'),
    ],
)
def test_setting_that_cannot_be(prepared: FakeHost, line: str, expected: str) -> None:
    """A locale that the machine has not, a library that is not there, a mistake: named in the phase's detail."""
    edit_configuration(prepared, line)
    prepared.embedded()
    assert "next try in" in prepared.phase("unreachable", containing=expected)["detail"]
    path = prepared.data_directory / "pg" / "postgresql.conf"
    path.write_text(path.read_text().replace(line, ""))
    prepared.phase("recovery_finished")


def limited(command: str) -> list[str]:
    """Return a prefix that runs a host after a command of the shell."""
    return ["sh", "-c", f'{command} && exec "$@"', "sh"]


def test_more_connections_than_memory(make_host: Callable[..., FakeHost], template: Path) -> None:
    """More slots than there is memory for: the server's words and its hint's setting, and the host goes on trying."""
    host = make_host(prefix=limited("ulimit -v 2000000"))
    subprocess.run(["cp", "-a", str(template), str(host.data_directory / "pg")], check=True)
    host.embedded(max_connections=262_000)
    detail = host.phase("unreachable", containing="could not map anonymous shared memory")["detail"]
    assert "Cannot allocate memory" in detail
    assert "next try in" in detail
    host.stop()


@pytest.fixture
def full_host(make_host: Callable[..., FakeHost], open_directory: Path) -> Callable[[int], tuple[FakeHost, Path]]:
    """Return a maker of hosts whose data directory is a small disk of its own, and the directory as seen from outside."""

    def make(megabytes: int) -> tuple[FakeHost, Path]:
        data = open_directory / "data"
        data.mkdir(mode=0o711)
        # In a mount namespace of its own, which ends with it: nothing stays mounted.
        mount = f"mount -t tmpfs -o size={megabytes}m,mode=0711 none {data}"
        host = make_host(data, prefix=["unshare", "--mount", *limited(mount)])
        host.spawn()
        return host, Path(f"/proc/{host.process.pid}/root{data}")

    return make


@pytest.mark.slow
@pytest.mark.skipif(not IS_ROOT, reason="only root can mount")
def test_disk_full_in_initdb(full_host: Callable[[int], tuple[FakeHost, Path]]) -> None:
    """A disk that is too small for a new data directory: said, nothing left behind, and space is enough to go on."""
    host, data = full_host(30)
    host.configure_embedded()
    detail = host.phase("unreachable", containing="No space left on device")["detail"]
    assert "could not make the data directory: initdb failed" in detail
    assert not [name for name in os.listdir(data) if name.startswith("pg.new")]
    remount(host, data, 400)
    host.phase("recovery_finished")


@pytest.mark.slow
@pytest.mark.skipif(not IS_ROOT, reason="only root can mount")
def test_disk_full_at_run_time(full_host: Callable[[int], tuple[FakeHost, Path]]) -> None:
    """A disk that gets full while the server runs: the worker's query fails in PostgreSQL's words, what was committed stays."""
    host, data = full_host(400)
    host.configure_embedded()
    host.phase("recovery_finished")
    with host.connect() as connection:
        connection.execute("CREATE TABLE work (what text)")
        connection.execute("INSERT INTO work VALUES ('committed')")
        fill = data / "filling"
        with pytest.raises(OSError, match="No space left"):
            fill.write_bytes(bytes(500 << 20))
        with pytest.raises(psycopg.Error):
            connection.execute("INSERT INTO work SELECT repeat(md5(n::text), 40) FROM generate_series(1, 300000) n")
    mark = host.mark()
    os.kill(host.postgres_pid, signal.SIGKILL)
    host.phase("unreachable", mark)
    host.phase("unreachable", mark, containing="try 3")
    fill.unlink()
    host.phase("recovery_finished", mark)
    assert fetch(host, "SELECT what FROM work WHERE what = 'committed'") == [("committed",)]


def remount(host: FakeHost, data: Path, megabytes: int) -> None:
    """Enlarge the small disk."""
    inside = str(data).partition("/root")[2]
    command = ["nsenter", "--target", str(host.process.pid), "--mount", "mount", "-o", f"remount,size={megabytes}m", inside]
    subprocess.run(command, check=True)
