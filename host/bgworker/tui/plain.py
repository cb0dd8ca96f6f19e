"""The table for a pipe: full names, one row each, nothing cut, no boxes, no colour.

Pure, needs no rich: what ``grep`` and ``awk`` read must be cheap and must not depend on a
terminal. Columns are parted by at least two spaces, which no name can contain.
"""

from __future__ import annotations

from collections.abc import Iterator

from bgworker.tui.model import Row, View
from bgworker.tui.words import duration

_HEADINGS = ("SLOT", "NAME", "STATE", "PID", "FOR", "RST", "ACTIVITY / WHY")


def head_lines(view: View) -> tuple[str, str]:
    """Return what stands left in the first and in the second line of every form of the view."""
    first = f"bgworker  {view.state}"
    if view.uptime is not None:
        first += f"  up {duration(view.uptime)}"
    if view.pid is not None:
        first += f"  pid {view.pid}"
    return f"{first}  {view.data_directory}".rstrip(), f"database  {view.database}  crashes {view.crash_count}"


def use_words(view: View) -> str:
    """Return how full the slots are, as one line says it."""
    return f"{view.slots_in_use} of {view.max_worker_processes} slots in use"


def holders_line(view: View) -> str:
    """Return who holds the slots, for a view of a host that has no free one."""
    return f"no free slot; held by {view.holders}"


def lines(view: View) -> Iterator[str]:
    """Return the whole view as lines of text."""
    first, second = head_lines(view)
    yield f"{first}  {use_words(view)}"
    yield "  ".join((second, *(words for words, _ in view.counts)))
    if view.holders:
        yield holders_line(view)
    cells = [_HEADINGS, *(_cells(row) for row in view.rows)]
    # The last column is not padded: nothing follows it.
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEADINGS) - 1)]
    for line in cells:
        yield "  ".join([*(text.ljust(width) for text, width in zip(line, widths, strict=False)), line[-1]]).rstrip()


def _cells(row: Row) -> tuple[str, ...]:
    return (row.slot, row.name, row.state_words, row.pid_words, row.age_words, row.restarts_words, row.why or "-")
