"""The embedded server: made, started, used, stopped."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.integration.database.driving import IS_ROOT, SERVICE_USER, FakeHost, is_running, processes_in, wait_until
from tests.integration.stillness import wait_until_still

from bgworker._database.places import short_directory


def fetch(host: FakeHost, sql: str, **changes: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a query on a connection such as a worker has."""
    with host.connect(**changes) as connection:
        return connection.execute(sql.encode()).fetchall()


def edit_configuration(host: FakeHost, text: str) -> None:
    """Add lines to the user's configuration file."""
    with (host.data_directory / "pg" / "postgresql.conf").open("a") as file:
        file.write(f"\n{text}\n")


def test_start_from_nothing_gives_a_read_write_server(host: FakeHost) -> None:
    """C07: an empty data directory becomes a server in phase recovery_finished, with the settings the host needs."""
    host.embedded(name='my "own" db', max_connections=37)
    host.phase("starting")
    message = host.phase("recovery_finished")
    assert message["detail"] == ""
    settings = dict(fetch(host, "SELECT name, setting FROM pg_settings"))
    assert settings["max_connections"] == "37"
    assert settings["listen_addresses"] == ""
    assert (settings["fsync"], settings["data_checksums"]) == ("on", "on")
    assert fetch(
        host, "SELECT current_user, current_database(), pg_encoding_to_char(encoding), datlocale FROM pg_database LIMIT 1"
    ) == [("postgres", 'my "own" db', "UTF8", "C.UTF-8")]
    assert host.stop() < 5


def test_url_is_public_and_stable(prepared: FakeHost) -> None:
    """The url has no password, works in any client, and is the same after a restart."""
    prepared.embedded(name="shop")
    url = prepared.phase("recovery_finished")["url"]
    assert re.fullmatch(r"postgresql://postgres@/shop\?host=%2F[^&]+", url)
    psycopg.connect(url).close()
    prepared.stop()
    mark = prepared.mark()
    prepared.embedded(name="shop")
    assert prepared.phase("recovery_finished", mark)["url"] == url


def test_only_the_local_socket_lets_in(prepared: FakeHost) -> None:
    """Nobody but the service user and root passes the socket's directory, and host connections are rejected even if enabled."""
    prepared.embedded()
    directory = Path(str(psycopg.conninfo.conninfo_to_dict(prepared.phase("recovery_finished")["conninfo"])["host"]))
    status = directory.lstat()
    assert status.st_mode & 0o777 == 0o700
    assert directory.owner() == SERVICE_USER
    assert len(os.fsencode(directory / ".s.PGSQL.5432")) < 100
    rules = fetch(prepared, "SELECT type, auth_method FROM pg_hba_file_rules")
    assert {method for kind, method in rules if kind != "local"} == {"reject"}


def test_users_settings_win_over_ours_but_not_over_the_socket(prepared: FakeHost) -> None:
    """postgresql.conf is the user's: it wins over bgworker.conf, but cannot open the server to the network."""
    prepared.embedded()
    prepared.phase("recovery_finished")
    prepared.stop()
    edit_configuration(prepared, "shared_buffers = 40MB\nlisten_addresses = '*'")
    mark = prepared.mark()
    prepared.embedded(max_connections=41)
    prepared.phase("recovery_finished", mark)
    assert fetch(prepared, "SELECT current_setting('shared_buffers'), current_setting('listen_addresses')") == [("40MB", "")]
    assert fetch(prepared, "SELECT current_setting('max_connections')") == [("41",)]


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_stop_is_quick_with_idle_connections(running: FakeHost, mode: str) -> None:
    """C39: a fast or immediate stop does not wait for connections that do nothing, and leaves no process."""
    pid = running.postgres_pid
    connections = [running.connect() for _ in range(10)]
    # Half of the way in a transaction, half of it idle.
    for connection in connections[::2]:
        connection.execute("BEGIN")
    assert running.stop(mode) < 2
    assert not is_running(pid)
    assert running.messages("postgres")[-1]["pid"] is None
    for connection in connections:
        connection.close()


def test_stop_before_the_configuration_and_during_initdb(make_host: Callable[..., FakeHost]) -> None:
    """A stop is obeyed at any moment: with nothing to stop, and while initdb runs, which leaves no data directory behind."""
    host = make_host()
    host.spawn()
    host.stop()
    host.embedded()
    host.phase("starting", containing="initdb")
    host.stop()
    assert os.listdir(host.data_directory) == [] or "pg" not in os.listdir(host.data_directory)
    assert not any(name.startswith("pg.new") for name in os.listdir(host.data_directory))
    assert not os.path.exists(short_directory(os.path.realpath(host.data_directory)))


def test_stop_right_after_birth_is_not_lost(running: FakeHost) -> None:
    """A stop that arrives while the new process is not PostgreSQL yet ends it all the same."""
    running.stop()
    for _ in range(5):
        mark = running.mark()
        running.spawn()
        # Both lines are there before the birth: the stop is read in the first turn after it.
        running.configure_embedded()
        running.send(type="stop", mode="fast")
        running.received("stopped", mark)
        wait_until(lambda: not processes_in(running.data_directory / "pg"), "the end of the server")


def test_interrupted_initdb_is_no_obstacle(host: FakeHost) -> None:
    """A database process that dies while initdb runs leaves nothing that the next one stumbles over."""
    host.embedded()
    host.phase("starting", containing="initdb")
    os.kill(host.database_pid, signal.SIGKILL)
    pid = host.database_pid
    host.wait_for(lambda news: news.get("child_exited") == pid, "its exit")
    mark = host.mark()
    host.embedded()
    host.phase("recovery_finished", mark)
    assert sorted(os.listdir(host.data_directory)) == ["log", "pg", "run"]


def test_process_is_cut_off_from_the_host(running: FakeHost) -> None:
    """PostgreSQL runs as the service user for good, in its own session, with none of our descriptors or variables."""
    pid = running.postgres_pid
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    uids = set(status["Uid"].split())
    assert len(uids) == 1
    assert "0" not in uids
    assert int(status["CapEff"], 16) == 0
    assert int(status["CapPrm"], 16) == 0
    assert os.getsid(pid) == pid
    assert int(status["PPid"]) == running.process.pid
    targets = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    assert not any("deleted" in target for target in targets), "the host's lock is open in it"
    ours = {os.readlink(f"/proc/{running.database_pid}/fd/{fd}") for fd in os.listdir(f"/proc/{running.database_pid}/fd")}
    assert {target for target in targets if target.startswith(("socket", "pipe"))}.isdisjoint(ours)
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert {variable.partition(b"=")[0] for variable in variables} <= {
        b"PATH", b"TZ", b"TMPDIR", b"LANG", b"HOME", b"USER", b"LOGNAME", b"PG_GRANDPARENT_PID", b"",
    }  # fmt: skip


def test_log_is_private_and_bounded(prepared: FakeHost) -> None:
    """The server's log is a 0600 file in the data directory; a big one is put aside at the next start."""
    log = prepared.data_directory / "log" / "postgresql.log"
    log.parent.mkdir()
    with log.open("wb") as file:
        file.truncate(17 << 20)
    prepared.embedded()
    prepared.phase("recovery_finished")
    assert log.stat().st_mode & 0o777 == 0o600
    assert "ready to accept connections" in log.read_text()
    assert (log.parent / "postgresql.log.1").stat().st_size == 17 << 20


def test_log_that_is_a_link_is_refused(prepared: FakeHost, tmp_path: Path) -> None:
    """A symbolic link in place of the log is not followed, and the phase says so."""
    (prepared.data_directory / "log").mkdir()
    (prepared.data_directory / "log" / "postgresql.log").symlink_to(tmp_path / "elsewhere")
    prepared.embedded()
    prepared.phase("unreachable", containing="postgresql.log")
    assert not (tmp_path / "elsewhere").exists()


def test_idle_process_never_wakes_up(running: FakeHost) -> None:
    """Once the server is read-write and a listener stands, the database process sleeps: no wake-up at all."""
    running.send(type="listen", channels={"postgres": ["orders"]})
    running.received("gap")
    # The statement's own timer has been cancelled, but is only then forgotten when it would have been due.
    wait_until_still(running.database_pid, 2.0)
    assert not running.read(0.0), running.news[-1]


@pytest.mark.skipif(not IS_ROOT, reason="the path is short and open for a host that is not root")
def test_root_host_uses_a_short_directory_of_its_own(running: FakeHost) -> None:
    """As root the socket lies in /tmp, in a directory that is gone after a stop."""
    directory = psycopg.conninfo.conninfo_to_dict(running.phase("recovery_finished")["conninfo"])["host"]
    assert re.fullmatch(r"/tmp/bgworker-0-[0-9a-f]{16}", str(directory))
    running.stop()
    assert not os.path.exists(str(directory))


@pytest.mark.skipif(not IS_ROOT, reason="the path is short and open for a host that is not root")
@pytest.mark.parametrize("other", [False, True])
def test_what_a_killed_server_left_in_tmp(running: FakeHost, other: bool) -> None:
    """Its socket and lock go at the stop, and the directory with them; what somebody else has put there stays."""
    directory = Path(short_directory(os.path.realpath(running.data_directory)))
    if other:
        (directory / "precious").write_text("")
    mark = running.mark()
    os.kill(running.postgres_pid, signal.SIGKILL)
    running.phase("unreachable", mark)
    running.stop()
    assert directory.exists() == other
    assert not other or (directory / "precious").exists()
