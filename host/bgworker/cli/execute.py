"""``exec``: one worker's function in this terminal, on the same runtime as under a host."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from bgworker._spec import BGWORKER_SHMEM_ACCESS, DATABASE_WORKER_FLAGS, BackgroundWorker, sanity_check
from bgworker.cli import _console
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import json_value, library_function, verb
from bgworker.errors import HostError

if TYPE_CHECKING:
    from bgworker._worker.runtime import DatabaseFacts


@verb(
    "exec",
    """
bgworker exec shop_queue:export --arg '{"order": 42}'
bgworker exec shop_queue:drain      breakpoint() in it works
""",
)
@click.argument("library_function", metavar="LIBRARY:FUNCTION", type=library_function)
@click.option("--arg", type=json_value, metavar="JSON", help="bgw_main_arg: what the function is called with.")
@click.option("--name", help="bgw_name; LIBRARY:FUNCTION if not said.")
def execute(invocation: Invocation, library_function: tuple[str, str], arg: Any, name: str | None) -> int:
    """Run FUNCTION of LIBRARY as a worker in this terminal, and end with its exit code.

    It gets the settings, the python_path and the database of workers.toml, if there is one.
    There is no slot and no restart: what needs a host raises HostNotRunning. Ctrl-C is SIGTERM.
    """
    from bgworker._worker.terminal import run_in_terminal

    configuration = invocation.configuration()
    library, function = library_function
    has_database = configuration.database is not None
    worker = BackgroundWorker(
        bgw_name=name if name is not None else f"{library}:{function}",
        bgw_flags=DATABASE_WORKER_FLAGS if has_database else BGWORKER_SHMEM_ACCESS,
        bgw_library_name=library,
        bgw_function_name=function,
        bgw_main_arg=arg,
    )
    _console.flush()
    return run_in_terminal(
        sanity_check(worker, is_dynamic=True),
        settings=configuration.settings,
        database=_database(invocation) if has_database else None,
        # Without workers.toml this is the default, the directory we are in.
        python_path=[os.path.abspath(path) for path in configuration.host.python_path],
    )


def _database(invocation: Invocation) -> DatabaseFacts | None:
    """Return how the database is reached; None, and a warning, when it is not."""
    from bgworker._database.conninfo import keyword_string, parse, with_defaults
    from bgworker._worker.runtime import DatabaseFacts
    from bgworker.cli._database_url import database_url, leads_to_transaction_pooler, open_connection

    try:
        urls = [database_url(invocation), database_url(invocation, is_direct=True)]
        conninfo, direct_conninfo = (keyword_string(with_defaults(parse(url))) for url in urls)
    except HostError as error:
        # A worker that does not touch the database can be tried all the same.
        _console.note("WARNING", f"this worker has no database: {error.message_primary}")
        return None
    try:
        with open_connection(urls[0]) as connection:
            is_pooled = leads_to_transaction_pooler(urls[0], connection)
    except HostError:
        is_pooled = False  # it cannot be reached; the worker will find that out, if it connects at all
    if is_pooled and urls[0] == urls[1]:
        direct_conninfo = ""
    return DatabaseFacts("external", conninfo, None, is_pooled=is_pooled, direct_conninfo=direct_conninfo)
