"""``--set KEY=VALUE``: any key of a registration on the command line, in the words of workers.toml.

So there is no option for each key, and none to be forgotten when a key is new. Values are judged where all
registrations are: by ``_spec`` and by the host. Used by ``register``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import click
import tomli
from click.shell_completion import CompletionItem

from bgworker._spec import FIELD_NAMES
from bgworker.cli import _console

#: bgw_notify_pid would be that of a command that is over; instances are made by workers.toml alone.
KEYS: Final = tuple(key for key in FIELD_NAMES if key not in ("bgw_notify_pid", "instance"))
_KEY: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")


def assignment(text: str) -> dict[str, Any]:
    """Return the one key and value of ``KEY=VALUE``: the value as TOML has it, or as a text where it is no TOML."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not _KEY.fullmatch(key):
        raise click.BadParameter(f'"{text}" is not of the form KEY=VALUE, as in nice=5 or environment.TZ=UTC')
    first = key.partition(".")[0]
    if first not in KEYS:
        near = _console.nearest(first, list(KEYS))
        raise click.BadParameter(
            f'there is no key "{first}"; ' + (f'the nearest is "{near}"' if near else "see [[worker]] in docs/operating.md")
        )
    try:
        found = tomli.loads(f"{key} = {value}")
    except (ValueError, RecursionError):
        # A shell has eaten the quotes, or there were none: a cron expression, a umask of 022, the name of a user.
        found = _nested(key.split("."), value)
    try:
        plain: dict[str, Any] = json.loads(json.dumps(found, default=str, allow_nan=False))
    except (ValueError, RecursionError):
        raise click.BadParameter(f'the value of "{key}" is no JSON value') from None
    return plain


def _nested(parts: Sequence[str], value: str) -> dict[str, Any]:
    """Return the table that a dotted key makes of a text."""
    first, *rest = parts
    return {first: _nested(rest, value) if rest else value}


def merged(assignments: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return all of them as one table; of a key that is set twice the last one counts, key by key in tables."""
    result: dict[str, Any] = {}
    for each in assignments:
        for key, value in each.items():
            is_table = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged([result[key], value]) if is_table else value
    return result


def complete_key(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the keys that begin so."""
    return [CompletionItem(f"{key}=") for key in KEYS if key.startswith(incomplete)]
