"""``logs``: what the host and the workers wrote, from the files, with the host up or down."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import click

from bgworker.cli import _console, _silent
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import Count, verb
from bgworker.cli.completion import log_names
from bgworker.cli.status_json import fetch
from bgworker.errors import HostError

_DURATION: Final = re.compile(r"(\d{1,9})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _since(text: str) -> str:
    """Return an instant as log lines have it: so long ago, or an RFC 3339 time; UTC where it names no zone."""
    if (match := _DURATION.fullmatch(text)) is not None:
        try:
            at = datetime.now(UTC) - timedelta(seconds=int(match.group(1)) * _SECONDS[match.group(2)])
        except OverflowError:  # before the calendar begins: everything
            return ""
    else:
        try:
            at = datetime.fromisoformat(text)
            at = (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            raise click.BadParameter(f'"{text}" is neither a duration, as 10m, nor a time, as 2026-01-31T08:00:00Z') from None
    return at.replace(tzinfo=None).isoformat(" ", "milliseconds")


def _regex(text: str) -> re.Pattern[str]:
    """Return a regular expression as Python has them."""
    try:
        return re.compile(text)
    except re.error as error:
        raise click.BadParameter(f'"{text}" is not a regular expression: {error}') from None


@verb(
    "logs",
    """
bgworker logs                       everything, merged by time
bgworker logs -f order-drain        one worker, and what it writes next
bgworker logs -n 20 host            the last lines of the host itself
bgworker logs 3.2                   one registration, by SLOT.GENERATION
bgworker logs --since 10m --grep 'timeout|refused' order-drain export
bgworker logs --json -n 1000 | jq -r 'select(.level == "ERROR") | .message'
""",
)
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=log_names)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on, until Ctrl-C.")
@click.option("-n", "--lines", type=Count(min=0), help="Begin with this many lines; with -f the default is 10.")
@click.option(
    "--since", type=_since, metavar="WHEN", help="Only what is as young as 90s, 10m, 2h or 3d, or since an RFC 3339 time."
)
@click.option("--grep", "pattern", type=_regex, metavar="REGEX", help="Only lines that match, head of the line included.")
@click.option("--json", "as_json", is_flag=True, help="Print each line as a JSON object, whatever the format of the files is.")
def logs(
    invocation: Invocation,
    names: tuple[str, ...],
    follow: bool,
    lines: int | None,
    since: str | None,
    pattern: re.Pattern[str] | None,
    as_json: bool,
) -> int:
    """Print what the host and the workers wrote, merged by time, from files that were put aside, too.

    NAME is a worker, a type of workers, a slot, SLOT.GENERATION, or host for the host's own log;
    one that nobody bears is an error. Times are UTC.
    """
    from bgworker._logs import Wish, log_files, read_lines

    directory = invocation.location().data_directory
    if not follow and not log_files(directory):
        raise HostError(
            f'there are no logs in "{directory}"',
            "No host has run on this data directory, or it logs to standard error alone.",
            "Name another data directory with -D, or workers.toml with -c.",
        )
    if follow and lines is None and since is None:
        lines = 10
    if follow:
        _silent.begin_to_wait(invocation, directory, names)
    is_any = False
    wish = Wish(since or "", pattern, as_json)
    for line in read_lines(directory, names, follow=follow, tail=lines, wish=wish):
        is_any = True
        _console.say(line)
        if follow:
            _console.flush()
    # Of one name that has lines nothing more is to be said.
    if names and not (is_any and len(names) == 1) and (without := _silent.silent(directory, names)):
        status, _ = fetch(invocation)
        if unknown := _silent.nobodies(invocation, directory, status, without):
            raise _silent.no_line(invocation, status, unknown)
        if not is_any and lines != 0 and not (since or pattern):
            raise _silent.nothing_written(names)
    return 0
