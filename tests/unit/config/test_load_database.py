"""[database] of workers.toml: where it may lead, and that no error shows a password."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bgworker._config.load import ConfigurationErrors, load_configuration, parse_configuration
from bgworker._config.model import Configuration
from bgworker.errors import ConfigurationError

FILE = "/srv/shop/workers.toml"
#: A worker that is right, up to where a test adds to it; two lines and the header.
WORKER = '[[worker]]\nbgw_name = "heartbeat"\nbgw_library_name = "notify_demo"\nbgw_function_name = "heartbeat_main"\n'


def errors(text: str, environ: dict[str, str] | None = None) -> list[ConfigurationError]:
    """Return what is wrong with a text."""
    with pytest.raises(ConfigurationErrors) as caught:
        parse_configuration(text, FILE, environ or {})
    return caught.value.errors


def problems(text: str, environ: dict[str, str] | None = None) -> list[str]:
    """Return the primaries without the name of the file, with which each must start."""
    primaries = [error.message_primary for error in errors(text, environ)]
    assert all(primary.startswith(FILE) for primary in primaries)
    return [primary.removeprefix(FILE + ":") for primary in primaries]


def load(text: str, environ: dict[str, str] | None = None) -> Configuration:
    return parse_configuration(text, FILE, environ or {})


@pytest.mark.parametrize("url", ["embedded", "postgresql://u@h/db", "postgres://u@h/db"])
def test_database_url(url: str) -> None:
    """A database is embedded or a server."""
    database = load(f'[database]\nurl = "{url}"\n').database
    assert database is not None
    assert (database.url, database.name, database.user, database.direct_url) == (url, "postgres", None, None)


def test_database_url_from_the_environment() -> None:
    """{ env = NAME } is replaced by the variable's value, which the repr does not show."""
    text = '[database]\nurl = { env = "DATABASE_URL" }\n[database.direct_url]\nenv = "DIRECT"\n'
    database = load(text, {"DATABASE_URL": "postgresql://u:hunter2@pool/db", "DIRECT": "postgresql://u:hunter2@h/db"}).database
    assert database is not None
    assert (database.url, database.direct_url) == ("postgresql://u:hunter2@pool/db", "postgresql://u:hunter2@h/db")
    assert "hunter2" not in repr(database)
    assert (
        load(text, {"DATABASE_URL": " postgresql://h/x\n", "DIRECT": "postgres://h"}).database
        == load('[database]\nurl = "postgresql://h/x"\ndirect_url = "postgres://h"\n').database
    )
    assert "hunter2" not in repr(load(text, {"DATABASE_URL": "postgresql://u:hunter2@pool/db", "DIRECT": "postgres://u:hunter2@h"}))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('url = { env = "DATABASE_URL" }', 'environment variable "DATABASE_URL" is not set'),
        ('url = { env = "EMPTY" }', 'environment variable "EMPTY" is empty'),
        ('url = { env = "BLANK" }', 'environment variable "BLANK" is empty'),
        (
            'url = { env = "WRONG" }',
            'expected "embedded" or a URL that starts with postgresql://, found another string in environment variable "WRONG"',
        ),
        ('url = "mysql://u:hunter2@h"', 'expected "embedded" or a URL that starts with postgresql://, found another string'),
        ('url = "embeded"', 'expected "embedded" or a URL that starts with postgresql://, found another string'),
        (
            'url = "postgresql://u:hunter2@h\\n"',
            'expected "embedded" or a URL that starts with postgresql://, found another string',
        ),
        (
            'url = ["postgresql://u:hunter2@h"]',
            'expected "embedded", a URL that starts with postgresql://, or { env = "NAME" }, found an array',
        ),
        (
            'url = { file = "hunter2" }',
            'expected "embedded", a URL that starts with postgresql://, or { env = "NAME" }, found a table',
        ),
        ("url = 5", 'expected "embedded", a URL that starts with postgresql://, or { env = "NAME" }, found the integer 5'),
    ],
)
def test_database_url_errors(line: str, problem: str) -> None:
    """A url that cannot be used names its variable, and never shows its value."""
    (found,) = problems(f"[database]\n{line}\n", {"EMPTY": "", "BLANK": " \n", "WRONG": "host=h password=hunter2"})
    assert found == f"2: [database] url: {problem}"


@pytest.mark.parametrize(
    "text",
    [
        '[database]\nurl = "x:hunter2"\n',
        '[database]\nurl = "embedded"\nname = ["hunter2"]\nuser = "hunter2\\n"\n',
        'database = "hunter2"\n',
        '[database]\nulr = "postgresql://u:hunter2@h"\n',
        'url = "postgresql://u:hunter2@h"\n',
        '[host]\nlog = "postgresql://u:hunter2@h"\ncontrol_allow = ["password=hunter2"]\n',
        '[host]\ncontrol_group = "postgresql://u:hunter2@h\\n"\n',
        '[settings]\n"postgresql://u:hunter2@h" = 1\n"postgresql://u:hunter3@h".x = inf\n',
        '[settings.x]\nurl = "postgresql://u:hunter2@h"\ny = inf\n',
        '[database]\nurl = "postgresql://u:hunter2@h\n',
        '[database]\nurl = "postgresql://u:hunter2@h" x\n',
        '[database]\nurl = "postgresql://u:hunter2@h"\nurl = "postgresql://u:hunter2@h"\n',
        f'{WORKER}bgw_start_time = "postgresql://u:hunter2@h"\nbgw_main_arg = {{ url = "postgresql://u:hunter2@h", x = inf }}\n',
    ],
)
def test_no_error_shows_a_password(text: str) -> None:
    """Wherever a password stands in a wrong file, no error repeats it."""
    with pytest.raises(ConfigurationErrors) as caught:
        parse_configuration(text, FILE, {})
    assert "hunter2" not in "\n".join(caught.value.lines()) + str(caught.value.to_dict()) + repr(caught.value)


def test_other_database_keys() -> None:
    """The rest of [database] is held to its bounds, too."""
    text = f'[database]\nname = "{"x" * 64}"\nuser = " "\ndirect_url = "embedded"\n'
    assert problems(text) == [
        "1: [database]: key url is missing",
        "2: [database] name: is too long: 64 bytes of UTF-8, at most 63 are allowed",
        "3: [database] user: expected a string that is not empty",
        "4: [database] direct_url: expected a URL that starts with postgresql://, found another string",
    ]
    (found,) = problems('[database]\nurl = "embedded"\ndirect_url = "postgresql://h"\n')
    assert found == '3: [database] direct_url: expected no direct_url beside url = "embedded"'


def test_environment_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without another environment the process's own is asked."""
    monkeypatch.setitem(os.environ, "BGW_TEST_URL", "postgresql://h/db")
    path = tmp_path / "w.toml"
    path.write_text('[database]\nurl = { env = "BGW_TEST_URL" }\n', encoding="utf-8")
    database = load_configuration(str(path)).database
    assert database is not None
    assert database.url == "postgresql://h/db"
