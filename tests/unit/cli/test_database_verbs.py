"""Where psql, notify and listen go."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bgworker._config.model import Configuration, DatabaseSettings
from bgworker.cli import _database_url, _programs, pg, psql
from bgworker.cli._invocation import Invocation
from bgworker.errors import ConfigurationError, HostError, HostNotRunning

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set what workers.toml says of the database."""

    def configure(url: str | None, direct_url: str | None = None) -> None:
        database = None if url is None else DatabaseSettings(url=url, direct_url=direct_url)
        monkeypatch.setattr(Invocation, "configuration", lambda self, **_: Configuration(database=database))

    configure(None)
    return configure


def test_embedded(client: Any, configured: Any) -> None:
    """The running host alone knows where the embedded server is."""
    configured("embedded")
    client.facts["host"] = {"database": {"kind": "embedded", "phase": "recovery_finished", "url": "postgresql:///postgres?host=/r"}}
    assert _database_url.database_url(Invocation()) == "postgresql:///postgres?host=/r"


def test_embedded_that_is_not_up(client: Any, configured: Any) -> None:
    """Before it runs there is nothing to connect to, and the reason is the database's."""
    client.facts["host"] = {"database": {"kind": "embedded", "phase": "starting", "url": "", "detail": "it is in /Data"}}
    with pytest.raises(HostError, match="does not run yet") as raised:
        _database_url.database_url(Invocation())
    assert raised.value.message_detail == "It is in /Data."


def test_external_needs_no_host(no_host: None, configured: Any) -> None:
    """An external server is reached with the host down, by its direct_url where a pooler would be in the way."""
    configured("postgresql://pooler/shop", "postgresql://server/shop")
    assert _database_url.database_url(Invocation()) == "postgresql://pooler/shop"
    assert _database_url.database_url(Invocation(), is_direct=True) == "postgresql://server/shop"


def test_external_takes_the_password_of_the_file(client: Any, configured: Any) -> None:
    """The host tells nobody the password; without the file the url without it is tried."""
    client.facts["host"] = {"database": {"kind": "external", "phase": "recovery_finished", "url": "postgresql://me@server/shop"}}
    configured("postgresql://me:secret@server/shop")
    assert _database_url.database_url(Invocation()) == "postgresql://me:secret@server/shop"
    configured(None)
    assert _database_url.database_url(Invocation()) == "postgresql://me@server/shop"


def test_no_database(client: Any, configured: Any) -> None:
    """A host without one is a matter of its workers.toml."""
    client.facts["host"] = {"database": None}
    with pytest.raises(ConfigurationError, match="has no database"):
        _database_url.database_url(Invocation())


def test_no_host_and_embedded(no_host: None, configured: Any) -> None:
    """Nobody knows where an embedded server would be."""
    configured("embedded")
    with pytest.raises(HostNotRunning):
        _database_url.database_url(Invocation())


def test_programs_of_the_newest_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of several servers in the wheel the newest one's programs are taken; without the wheel PATH's."""
    for name in ("pginstall", "pginstall9", "pginstall18"):
        (tmp_path / "wheel" / name / "bin").mkdir(parents=True)
        (tmp_path / "wheel" / name / "bin" / "psql").touch()

    class Spec:
        submodule_search_locations = (str(tmp_path / "wheel"),)

    monkeypatch.setattr("importlib.util.find_spec", lambda name: Spec)
    assert _programs.find_program("psql").endswith("pginstall18/bin/psql")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert _programs.find_program("psql") == "/usr/bin/psql"
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(HostError, match="there is no psql"):
        _programs.find_program("psql")


def test_psql_gets_the_password_out_of_sight(no_host: None, configured: Any, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """The password goes by the environment, never by the arguments; everything behind the verb is psql's."""
    configured("postgresql://me:se%20cret@server/shop")
    seen: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *arguments: seen.append(arguments))
    monkeypatch.setattr(psql, "find_program", lambda name: f"/bin/{name}")
    assert run("psql", "-c", "SELECT 1", "-At", "-h", "x")[0] == 0
    program, arguments, environment = seen[0]
    assert program == "/bin/psql"
    assert arguments == ["/bin/psql", "-c", "SELECT 1", "-At", "-h", "x"]
    assert (environment["PGHOST"], environment["PGUSER"], environment["PGDATABASE"]) == ("server", "me", "shop")
    assert environment["PGPASSWORD"] == "se cret"
    assert not any("cret" in argument for argument in arguments)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql://me:hun/ter2@server/shop", "port is not a number"),
        ("postgresql://me:hun@ter2@server/shop", 'host name contains "@"'),
        ("postgresql://me:hunter2@server/shop?hunter2=1", "cannot be read"),
        ("postgresql://me@server/shop?sslpassword=hunter2", "cannot be given sslpassword"),
    ],
)
def test_psql_is_not_called_with_a_secret(no_host: None, configured: Any, run: Run, url: str, problem: str) -> None:
    """A url that libpq cannot read, or whose secret has no place but the arguments, is one error without the secret."""
    configured(url)
    code, output, errors = run("psql")
    assert code == 2
    assert problem in errors
    assert "ter2" not in output + errors


def test_pg_learns_from_the_environment(no_host: None, configured: Any, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """Where the server is goes by the environment, a pooler passed by; what stands behind the program's name is the program's."""
    configured("postgresql://pooler/shop", "postgresql://me:se%20cret@server:6000/shop?sslmode=require")
    seen: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *arguments: seen.append(arguments))
    monkeypatch.setattr(pg, "find_program", lambda name: f"/bin/{name}")
    assert run("pg", "pg_dump", "-Fc", "-D", "x", "--config", "y", "--help")[0] == 0
    program, arguments, environment = seen[0]
    assert program == "/bin/pg_dump"
    assert arguments == ["/bin/pg_dump", "-Fc", "-D", "x", "--config", "y", "--help"]
    told = {name: environment[name] for name in ("PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGSSLMODE")}
    assert list(told.values()) == ["server", "6000", "me", "se cret", "shop", "require"]


def test_pg_refuses_what_is_no_program(client: Any, configured: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path or a misspelt name is an error that says so; without a name the directory is printed."""
    assert run("pg", "/bin/true")[0] == 2
    code, _, errors = run("pg", "pg_dmup")
    assert code == 1
    assert "there is no pg_dmup" in errors
    monkeypatch.setattr(pg, "wheel_directory", lambda: "/wheel/bin")
    assert run("pg")[:2] == (0, "/wheel/bin\n")
