"""``logs``: what the host and the workers wrote, from the files, with the host up or down."""

from __future__ import annotations

import click

from bgworker.cli import _console
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import verb
from bgworker.errors import HostError


@verb(
    "logs",
    """
bgworker logs                       everything, merged by time
bgworker logs -f order-drain        one worker, and on with what it writes from now on
bgworker logs -n 20 host            the last lines of the host itself
bgworker logs 3.2                   one registration, by SLOT.GENERATION
""",
)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(min=0), help="Begin with this many lines; with -f the default is 10.")
def logs(invocation: Invocation, names: tuple[str, ...], follow: bool, lines: int | None) -> int:
    """Print what the host and the workers wrote.

    NAME is a worker, a type of workers, a slot, SLOT.GENERATION, or host for the host's own log.
    """
    from bgworker._logs import log_files, read_lines

    directory = invocation.location().data_directory
    if not follow and not log_files(directory):
        raise HostError(
            f'there are no logs in "{directory}"',
            "No host has run on this data directory, or it logs to standard error alone.",
            "Name another data directory with -D, or workers.toml with -c.",
        )
    if follow and lines is None:
        lines = 10
    is_any = False
    for line in read_lines(directory, names, follow=follow, tail=lines):
        is_any = True
        _console.say(line)
        if follow:
            _console.flush()
    if names and not is_any and lines != 0:
        known = ", ".join(sorted(log_files(directory)))
        raise HostError(f"no line is from {' or '.join(names)}", f"There are logs of: {known}.")
    return 0
