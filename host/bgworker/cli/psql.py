"""``psql``: the wheel's psql, or PATH's, on the host's database."""

from __future__ import annotations

import os

import click

from bgworker.cli import _console
from bgworker.cli._database_url import database_url, environment_of
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import verb
from bgworker.cli._programs import find_program


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
    psql's, -c and -h included, but --help, -D and --config; -d names another database of the same
    server.
    """
    program = find_program("psql")
    environment = environment_of(database_url(invocation))
    _console.flush()
    os.execve(program, [program, *arguments], environment)
