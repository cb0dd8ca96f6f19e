"""``scale``: another number of instances of a worker."""

from __future__ import annotations

import click

from bgworker.cli import _absent, _console
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import json_option, verb
from bgworker.errors import WorkerNotFound


@verb("scale", "bgworker scale web 5")
@click.argument("name")
@click.argument("count", type=int, metavar="N")
@json_option
def scale(invocation: Invocation, name: str, count: int, as_json: bool) -> int:
    """Start or stop instances of NAME until there are N; the others run on.

    NAME is a worker of workers.toml with instances, without a number. A reload keeps N, unless
    instances in the file has changed. Exit code 5 if there are not enough slots; nothing is done then.
    """
    with invocation.connect() as client:
        try:
            done = client.scale(name, count)
        except WorkerNotFound as error:
            raise _absent.told_why(invocation, _absent.status_of(client), name, error, is_group=True) from None
    if as_json:
        _console.say_json(done)
        return 0
    for word in ("started", "stopped"):
        for each in done[word]:
            _console.say(f"{'starting' if word == 'started' else 'terminating'} {_console.inert(each)}")
    if not done["started"] and not done["stopped"]:
        _console.say(f"there are {count} already")
    return 0
