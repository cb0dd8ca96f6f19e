"""``completion``: what a shell needs to complete verbs, options and names of workers; and the names themselves.

The shell runs ``bgworker`` with ``_BGWORKER_COMPLETE`` set at each press of the key; ``_group``
then answers by click instead of running a verb. Nothing here may print or raise: it would
land in the middle of somebody's command line.
"""

from __future__ import annotations

import os
import shlex
from collections import Counter
from typing import Any, Final

import click
from click.shell_completion import CompletionItem, get_completion_class

from bgworker.cli import _console
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import verb
from bgworker.errors import HostError
from bgworker.tui.health import instance_of

#: Set by the functions that ``completion`` prints; click's own way of naming it.
VARIABLE: Final = "_BGWORKER_COMPLETE"
SHELLS: Final = ("bash", "zsh", "fish")


@verb(
    "completion",
    """
source <(bgworker completion bash)          in ~/.bashrc
bgworker completion zsh > "${fpath[1]}/_bgworker"
bgworker completion fish > ~/.config/fish/completions/bgworker.fish
""",
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(_invocation: Invocation, shell: str) -> None:
    """Print what makes a shell complete commands, options and the names of workers.

    Names are those of the running host that the command would act on. bash needs version 4.4.
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click has all three"
    # Not source(): that one looks at the bash in the PATH, which need not be the one that will read this.
    made = kind(click.Command("bgworker"), {}, "bgworker", VARIABLE)
    _console.say((made.source_template % made.source_vars()).strip("\n"))


def worker_names(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names that begin so: workers that are registered, or over; none without a host."""
    return _items(_workers(_status(context)), incomplete)


def names_and_groups(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the same, and the names that instances share."""
    status = _status(context)
    groups = Counter(filter(None, (instance_of(slot) for slot in status.get("slots") or ())))
    shown = {name: f"{count} instance{'s' if count != 1 else ''}" for name, count in groups.items()}
    return _items({**shown, **_workers(status)}, incomplete)


def _status(context: click.Context) -> dict[str, Any]:
    """Return the host's status; empty without a host."""
    invocation = context.find_object(Invocation) or Invocation()
    try:
        with invocation.connect() as client:
            return client.status()
    except (HostError, OSError):
        return {}


def _workers(status: dict[str, Any]) -> dict[str, str]:
    """Return the workers that a status has, with their states."""
    entries: list[dict[str, Any]] = [*(status.get("slots") or ()), *(status.get("finished") or ())]
    return {str(entry.get("bgw_name")): str(entry.get("state") or "finished") for entry in reversed(entries)}


def _items(chosen: dict[str, str], incomplete: str) -> list[CompletionItem]:
    """Return those that begin so, as the shell is told of them."""
    return [
        CompletionItem(_quoted(name), help=state)
        for name, state in sorted(chosen.items())
        # What is no text of one line would be several words, or none, to the shell.
        if name.startswith(incomplete.strip("'\"")) and name.isprintable()
    ]


def log_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the same, and the host's own log."""
    names = worker_names(context, parameter, incomplete)
    return [*names, CompletionItem("host")] if "host".startswith(incomplete) else names


def _quoted(name: str) -> str:
    # bash takes what it gets as it is; the other two quote it themselves.
    return shlex.quote(name) if os.environ.get(VARIABLE, "").startswith("bash") else name
