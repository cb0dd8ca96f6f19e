"""Workers that start after others: what a value of ``after`` means, and whether several of them contradict each other.

Pure: texts and names in, verdicts out. ``_spec`` reads the key with it, the loader refuses a file by
it, the host a dynamic registration. Which worker may start when is decided in ``_core/order.py``.
"""

from __future__ import annotations

import graphlib
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

#: What of the other worker is waited for; the first is meant where none is named.
CONDITIONS: Final = ("started", "ready", "finished")
#: More names than this are a slip; a registration must fit one line of the protocol.
MOST: Final = 32


class Awaited(NamedTuple):
    """One entry of ``after``."""

    name: str
    condition: str

    def __str__(self) -> str:
        return f"{self.name}:{self.condition}"


def awaited(entry: str) -> Awaited:
    """Return what an entry means; a name may hold colons, so only the last word can be a condition."""
    name, colon, condition = entry.rpartition(":")
    return Awaited(name, condition) if colon and condition in CONDITIONS else Awaited(entry, CONDITIONS[0])


def normalised(value: Any) -> tuple[str, ...]:
    """Return the entries with their conditions, each once.

    Raises:
        ValueError: It is no list of names.
    """
    expected = f'a list of names of workers, each as "NAME" or "NAME:{"|".join(CONDITIONS)}"'
    if not isinstance(value, list | tuple) or not all(isinstance(entry, str) and awaited(entry).name.strip() for entry in value):
        raise ValueError(f"must be {expected}")
    entries = tuple(dict.fromkeys(str(awaited(entry)) for entry in value))
    if len(entries) > MOST:
        raise ValueError(f"names more than {MOST} workers")
    return entries


def names(entries: Iterable[str]) -> set[str]:
    """Return the workers that the entries name."""
    return {awaited(entry).name for entry in entries}


def find_cycle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Return workers that wait for each other, each after the next and the last the first again; empty if there are none.

    Args:
        graph: Worker to the names that it comes after.
    """
    try:
        graphlib.TopologicalSorter({name: sorted(before) for name, before in graph.items()}).prepare()
    except graphlib.CycleError as error:
        # It lists each before the one that comes after it, and begins anywhere.
        ring: list[str] = error.args[1][:0:-1]
        first = ring.index(min(ring))
        return [*ring[first:], *ring[:first], ring[first]]
    return []
