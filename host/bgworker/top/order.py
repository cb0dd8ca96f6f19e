"""Which rows the table shows, in which order, and how wide its columns are. Pure; no textual.

The order of ``tui.model`` (trouble first, then by slot) is one of the orders. All others are stable
on top of it, so that rows that are equal do not change places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from rich.cells import cell_len

from bgworker.tui.figures import Figures
from bgworker.tui.model import STATE_WIDTH, Group, Row
from bgworker.tui.render import cut_end, cut_middle
from bgworker.tui.words import percent, size

#: The order without a column: that of the live view.
TROUBLE_FIRST: Final = ""


class Entry(NamedTuple):
    """A row, and what its process uses."""

    row: Row
    figures: Figures | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """Says whether a row is the one that it was in the last picture."""
        # Workers that were never registered have no slot; only their name tells them apart.
        return (self.row.slot, self.row.name, self.row.state if self.row.slot == "-" else "")


class Column(NamedTuple):
    """One column of the table."""

    heading: str
    #: Cells; 0 takes what is left.
    width: int
    is_right: bool
    #: What it shows, and what it is sorted by.
    text: Callable[[Entry], str]
    by: Callable[[Entry], Any]
    #: Whether sorting begins with the largest.
    descends: bool = False


def _unknown_last(value: float | None) -> float:
    return -1.0 if value is None else value


#: In their order on the screen.
COLUMNS: Final = (
    Column("SLOT", 5, True, lambda e: e.row.slot, lambda e: e.row.slotno),
    Column("NAME", 18, False, lambda e: e.row.name, lambda e: e.row.name.casefold()),
    Column("STATE", STATE_WIDTH, False, lambda e: e.row.state_words, lambda e: (e.row.group, e.row.state)),
    Column("PID", 7, True, lambda e: e.row.pid_words, lambda e: e.row.pids),
    Column("FOR", 6, True, lambda e: e.row.age_words, lambda e: _unknown_last(e.row.age), True),
    Column("RST", 3, True, lambda e: e.row.restarts_words, lambda e: e.row.restarts, True),
    Column(
        "CPU", 4, True, lambda e: percent(e.figures.cpu) if e.figures else "-", lambda e: e.figures.cpu if e.figures else -1, True
    ),
    Column(
        "MEM",
        5,
        True,
        lambda e: size(e.figures.memory) if e.figures else "-",
        lambda e: e.figures.memory if e.figures else -1,
        True,
    ),
    Column("ACTIVITY / WHY", 0, False, lambda e: e.row.why or "-", lambda e: e.row.why.casefold()),
)
BY_HEADING: Final = {column.heading: column for column in COLUMNS}

#: The columns that go first where there is no room, and the cells that the last column keeps before one goes.
_OPTIONAL: Final = ("PID", "RST", "MEM", "CPU", "FOR")
_WHY_WIDTH: Final = 16
_LONGEST_NAME: Final = 64


def columns_for(width: int) -> list[Column]:
    """Return the columns of a terminal of so many cells, with their widths; the last one may be left out."""
    kept = list(COLUMNS)

    def rest() -> int:
        return width - sum(column.width + 1 for column in kept if column.width)

    for heading in _OPTIONAL:
        if rest() >= _WHY_WIDTH:
            break
        kept.remove(BY_HEADING[heading])
    why = rest()
    # A wide terminal gives names a third of what is left over.
    more = max(0, min((why - 2 * _WHY_WIDTH) // 3, _LONGEST_NAME - BY_HEADING["NAME"].width))
    widths = {"NAME": BY_HEADING["NAME"].width + more, "ACTIVITY / WHY": why - more}
    return [column._replace(width=widths.get(column.heading, column.width)) for column in kept if column.width or why > 0]


def cell(entry: Entry, column: Column) -> str:
    """Return what stands in a cell, in the column's width and with the gap to the next one."""
    text = column.text(entry)
    return padded(cut_middle(text, column.width) if column.heading == "NAME" else cut_end(text, column.width), column)


def padded(text: str, column: Column) -> str:
    """Return a text on its side of the column."""
    gap = " " * max(0, column.width - cell_len(text))
    return f"{gap}{text} " if column.is_right else f"{text}{gap} "


def arrange(
    entries: Sequence[Entry],
    *,
    sort_by: str = TROUBLE_FIRST,
    is_reversed: bool = False,
    pattern: str = "",
    hides_finished: bool = False,
) -> list[Entry]:
    """Return the entries to show, in order.

    Args:
        entries: In the order of the live view.
        sort_by: Heading of a column, or TROUBLE_FIRST.
        is_reversed: The other way round than the column's own.
        pattern: Words that each have to stand somewhere in the row; case does not matter.
        hides_finished: Whether workers that ended well are left out.
    """
    words = pattern.casefold().split()
    kept = [entry for entry in entries if _has(entry, words) and not (hides_finished and entry.row.group is Group.FINISHED)]
    if sort_by == TROUBLE_FIRST:
        return kept[::-1] if is_reversed else kept
    column = BY_HEADING[sort_by]
    return sorted(kept, key=column.by, reverse=column.descends != is_reversed)


def _has(entry: Entry, words: Sequence[str]) -> bool:
    row = entry.row
    text = " ".join((row.slot, row.name, row.type, row.state_words, row.pid_words, row.why)).casefold()
    return all(word in text for word in words)


def entries_of(rows: Sequence[Row], figures: Mapping[int, Figures]) -> list[Entry]:
    """Return rows with the figures of their processes."""
    return [Entry(row, next((figures[pid] for pid in row.pids if pid in figures), None)) for row in rows]
