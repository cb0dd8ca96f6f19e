"""Connection strings: defaults, the public form, secrets."""

from __future__ import annotations

import os
from pathlib import Path

import psycopg.conninfo
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgworker._database import conninfo
from bgworker.errors import ConfigurationError


def test_defaults_give_way_to_the_url() -> None:
    """Keepalives and timeouts are set unless the url says otherwise."""
    parameters = conninfo.with_defaults(conninfo.parse("postgresql://me@h/db?keepalives_idle=5&connect_timeout=3"))
    assert parameters["keepalives_idle"] == "5"
    assert parameters["connect_timeout"] == "3"
    assert parameters["tcp_user_timeout"] == "30000"


def test_connect_timeout_of_the_environment_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    """PGCONNECT_TIMEOUT is the one default that libpq itself reads from the environment."""
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "7")
    parameters = conninfo.with_defaults({"host": "h"})
    assert "connect_timeout" not in parameters
    assert conninfo.connect_timeout(parameters) == 7.0


@pytest.mark.parametrize(("text", "seconds"), [("10", 10.0), ("1", 2.0), ("0", 130.0), ("-1", 130.0), ("", 130.0), ("soon", 130.0)])
def test_connect_timeout_is_read_as_libpq_reads_it(text: str, seconds: float) -> None:
    """1 means 2; 0 means for ever, which here is finite."""
    assert conninfo.connect_timeout({"connect_timeout": text}) == seconds


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("postgresql://me:secret@h:5433/db?sslmode=require", "postgresql://me@h:5433/db?sslmode=require"),
        ("postgresql://h1:1,h2:2/db?password=secret&sslpassword=secret", "postgresql://h1:1,h2:2/db"),
        ("host=/run/pg port=5433 user='a b' dbname=x password=secret", "postgresql://a%20b@/x?host=%2Frun%2Fpg&port=5433"),
        ("postgresql://[::1]:5432/db", "postgresql://[::1]:5432/db"),
        ("host=a,b port=5 dbname=x", "postgresql://a:5,b:5/x"),
    ],
)
def test_public_url_has_no_secret_and_means_the_same(url: str, public: str) -> None:
    """What is shown leads to the same server, without the password."""
    parameters = conninfo.parse(url)
    assert conninfo.public_url(parameters) == public
    again = conninfo.parse(public)
    expected = {key: value for key, value in parameters.items() if key not in conninfo.SECRETS}
    if expected.get("host") == "a,b":
        expected["port"] = "5,5"
    assert again == expected


@given(st.dictionaries(st.sampled_from(["user", "password", "dbname", "options"]), st.text(st.characters(exclude_characters="\0"))))
def test_keyword_string_is_read_back(parameters: dict[str, str]) -> None:
    """Any value survives the quoting."""
    parameters = {key: value.encode("utf-8", "ignore").decode() for key, value in parameters.items()}
    assert psycopg.conninfo.conninfo_to_dict(conninfo.keyword_string(parameters)) == parameters


@given(
    st.fixed_dictionaries(
        {
            key: st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
            for key in ("user", "dbname", "application_name")
        }
    )
)
def test_public_url_is_read_back(parameters: dict[str, str]) -> None:
    """Any value survives the percent-encoding."""
    assert conninfo.parse(conninfo.public_url({**parameters, "password": "x", "host": "/run"})) == {**parameters, "host": "/run"}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:top@secret@h/db",
        "postgresql://me:top/secret@h/db",
        "postgresql://me:secret@h/db?secret=1",
        "host=h password=top secret",
        "postgresql://me:%zzsecret@h/db",
        "postgresql://me:secret@[h/db",
        "host='secret",
        "  ",
    ],
)
def test_unreadable_url_is_an_error_without_a_word_of_it(url: str) -> None:
    """Any part of a url that cannot be read may be the password."""
    with pytest.raises(ConfigurationError) as caught:
        conninfo.parse(url)
    assert "secret" not in str(caught.value.to_dict())


def test_url_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """{env = NAME} is read here, and its absence names the variable."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://h/x")
    assert conninfo.parse({"env": "DATABASE_URL"}) == {"host": "h", "dbname": "x"}
    monkeypatch.delenv("DATABASE_URL")
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        conninfo.parse({"env": "DATABASE_URL"})


def test_message_is_one_line_without_secrets() -> None:
    """Libpq's messages have several lines; a password in one is replaced."""
    message = 'connection failed: FATAL:  no "sesame" here.\n\tIs the server running?\n'
    assert (
        conninfo.without_secrets(message, {"password": "sesame"})
        == 'connection failed: FATAL:  no "********" here; Is the server running?'
    )


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, (30.0, 30.0)),
        ({"keepalives_idle": "5", "keepalives_interval": "2", "keepalives_count": "4"}, (5.0, 8.0)),
        ({"keepalives_idle": "0", "keepalives_count": "nonsense"}, (30.0, 30.0)),
        ({"keepalives": "0"}, None),
    ],
)
def test_signs_of_life_follow_the_keepalives(parameters: dict[str, str], expected: tuple[float, float] | None) -> None:
    """A server is asked for a sign of life as often as its connection is probed, and not where the url switches that off."""
    assert conninfo.keepalive(conninfo.with_defaults(parameters)) == expected


def test_embedded_server_is_not_asked() -> None:
    """Its connections are made without keepalives."""
    assert conninfo.keepalive({"host": "/run", "connect_timeout": "10"}) is None


@pytest.fixture
def service_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A service file that libpq finds."""
    path = tmp_path / "services"
    path.write_text("[shop]\nhost=db.example\nport=77\npassword=hunter2\nconnect_timeout=4\n[broken]\nnonsense\n")
    monkeypatch.setenv("PGSERVICEFILE", str(path))
    monkeypatch.delenv("PGSERVICE", raising=False)
    return path


def test_service_is_replaced_by_what_its_file_says(service_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the service file says stands before our defaults and behind the url; its password is known as one."""
    parameters = conninfo.parse("postgresql://me@/orders?service=shop&port=78")
    assert conninfo.with_defaults(parameters)["connect_timeout"] == "4"
    assert conninfo.public_url(parameters) == "postgresql://me@db.example:78/orders?connect_timeout=4"
    assert conninfo.without_secrets("hunter2", parameters) == "********"
    monkeypatch.setenv("PGSERVICE", "shop")
    assert conninfo.parse("postgresql://me@/orders")["host"] == "db.example"
    assert os.environ["PGSERVICE"] == "shop"


@pytest.mark.parametrize(
    ("service", "reason"), [("missing", 'definition of service "missing" not found'), ("broken", "syntax error in service file")]
)
def test_service_that_cannot_be_read(service_file: Path, service: str, reason: str) -> None:
    """A service that is not there, or that cannot be read, is an error in libpq's words."""
    with pytest.raises(ConfigurationError, match=reason):
        conninfo.parse(f"postgresql:///?service={service}")
    assert "PGSERVICE" not in os.environ
