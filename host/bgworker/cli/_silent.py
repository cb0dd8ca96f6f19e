"""What to say of names that no line of a log is from: of workers that have written nothing, and of names that nobody bears.

``logs`` alone uses it. A name that nobody bears would otherwise be waited for without end.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Final

from bgworker._collector.names import HOST_LABEL
from bgworker.cli import _console
from bgworker.cli._invocation import Invocation
from bgworker.cli.status_json import fetch
from bgworker.errors import HostError
from bgworker.tui.health import answers_to

#: Logs that are nobody's among the workers: they may be there, or not yet.
_OTHERS: Final = (HOST_LABEL, "loader")
#: Workers that an error names.
_MOST_NAMES: Final = 20


def silent(directory: str, names: Iterable[str]) -> list[str]:
    """Return those of the names that no line is from, in their order."""
    from bgworker._logs import read_lines

    return [name for name in dict.fromkeys(names) if next(read_lines(directory, (name,), tail=1), None) is None]


def begin_to_wait(invocation: Invocation, directory: str, names: Sequence[str]) -> None:
    """Say that nothing is there to be followed yet.

    Args:
        invocation: Which host, and which file.
        directory: Its data directory.
        names: What is to be followed; none for everything.

    Raises:
        HostError: The host runs, and a name is that of nobody.
    """
    from bgworker._logs import log_files

    if not os.path.isdir(directory):
        return  # which is an error of whoever watches it
    if not names:
        if not log_files(directory):
            _console.note("LOG", "waiting for the first line; there are no logs yet")
        return
    without = silent(directory, names)
    if not without:
        return
    try:
        status, down = fetch(invocation)
    except HostError:  # whoever may read the logs need not be allowed to view: then they are waited for as they are
        status, down = {}, None
    if status and down is None and (unknown := nobodies(invocation, directory, status, without)):
        raise no_line(invocation, status, unknown)
    _console.note("LOG", f"waiting for the first line of {_listed(without)}{'; no host is running' if down is not None else ''}")


def nobodies(invocation: Invocation, directory: str, status: dict[str, Any], names: Iterable[str]) -> list[str]:
    """Return those of the names that nobody bears: no worker, type or slot of the host, of its history or of workers.toml."""
    from bgworker._logs import read_history

    entries = [entry for key in ("slots", "finished", "rejected") for entry in status.get(key) or ()]
    count = (status.get("host") or {}).get("max_worker_processes") or 0
    left = [name for name in names if name not in _OTHERS and not _is_slot(name, count)]
    left = [name for name in left if not _is_any(name, entries)]
    if left:
        written = set(_configured(invocation))
        left = [name for name in left if name not in written]
    if left:
        try:
            past = list(read_history(directory))
        except HostError:
            past = []
        left = [name for name in left if not _is_any(name, past)]
    return left


def no_line(invocation: Invocation, status: dict[str, Any], unknown: Sequence[str]) -> HostError:
    """Return the error for names that nobody bears, with the nearest that somebody does."""
    known = dict.fromkeys(str(entry.get("bgw_name")) for key in ("slots", "finished") for entry in status.get(key) or ())
    shown = ", ".join(
        [*(_console.inert(name) for name in list(known)[:_MOST_NAMES]), *(["..."] if len(known) > _MOST_NAMES else [])]
    )
    candidates = [*dict.fromkeys([*known, *_configured(invocation), HOST_LABEL])]
    near = next(filter(None, (_console.nearest(name, candidates) for name in unknown)), None)
    return HostError(
        f"no line is from {_listed(unknown, 'or')}",
        f"The workers are: {shown}." if known else "No worker is known here.",
        f'The nearest is "{_console.inert(near)}".' if near else "The log of the host itself is: bgworker logs host",
    )


def nothing_written(names: Sequence[str]) -> HostError:
    """Return the error for workers that are there, and have written nothing."""
    return HostError(
        f"no line is from {_listed(names, 'or')}", "It has written nothing." if len(names) == 1 else "They have written nothing."
    )


def _listed(names: Sequence[str], word: str = "and") -> str:
    return f" {word} ".join(f'"{_console.inert(name)}"' for name in names)


def _is_any(name: str, entries: Iterable[dict[str, Any]]) -> bool:
    return any(answers_to(entry, name) or entry.get("bgw_type") == name for entry in entries)


def _is_slot(name: str, count: int) -> bool:
    """Whether a worker may come that this slot, or life of a slot, is the one of."""
    number, dot, generation = name.partition(".")
    is_number = number.isascii() and number.isdigit() and (not dot or (generation.isascii() and generation.isdigit()))
    return is_number and len(number) < 10 and int(number) < count


def _configured(invocation: Invocation) -> list[str]:
    """Return names and types of the workers in workers.toml; none if it cannot be read."""
    try:
        tables = invocation.configuration().worker
    except (HostError, OSError):
        return []
    return [name for table in tables for name in (*table.names, table.bgw_name, table.bgw_type) if name]
