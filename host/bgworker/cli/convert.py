"""``import``: another supervisor's file, written anew as workers.toml."""

from __future__ import annotations

import os

import click

from bgworker.cli import _console
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import verb
from bgworker.errors import ConfigurationError


@verb(
    "import",
    """
bgworker import supervisord /etc/supervisor/supervisord.conf
bgworker import procfile Procfile -o workers.toml
""",
)
@click.argument("kind", metavar="KIND", type=click.Choice(["supervisord", "procfile"]))
@click.argument("file", metavar="FILE")
@click.option("-o", "--output", metavar="FILE", help="Write to this file, which must not exist yet, instead of standard output.")
def convert(_invocation: Invocation, kind: str, file: str, output: str | None) -> int:
    """Write a workers.toml from FILE, of KIND supervisord or procfile.

    What has no counterpart, or becomes something else, is said on standard error, line by line.
    Nothing is started, and FILE is not changed.
    """
    if kind == "supervisord":
        from bgworker._migration import supervisord

        result = supervisord.convert(file, os.environ)
    else:
        from bgworker._migration import procfile

        result = procfile.convert(file)
    for remark in result.remarks:
        _console.note("NOTE", str(remark))
    text = result.text(file)
    if output is None:
        _console.say(text.rstrip("\n"))
    else:
        _write(output, text)
    count = result.count
    _console.note("NOTE", f"{count} {'worker' if count == 1 else 'workers'}; next: bgworker check -c {output or 'FILE'}")
    return 0


def _write(path: str, text: str) -> None:
    try:
        # Values of environment keys may be secrets.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise ConfigurationError(f'file "{path}" exists already', message_hint="Name another one, or move it away.") from None
    except OSError as error:
        raise ConfigurationError(f'could not write "{path}": {error.strerror}') from None
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
