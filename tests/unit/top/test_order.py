"""Order, filter and columns of the table."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from bgworker.top.order import BY_HEADING, COLUMNS, Entry, arrange, cell, columns_for
from bgworker.tui.figures import Figures
from bgworker.tui.model import Group, Row


def entry(name: str, number: int = 0, cpu: float = 0.0, **keys: object) -> Entry:
    facts: dict[str, object] = {"group": Group.RUNNING, "slotno": number, "slot": f"{number}.1", "type": name, "state": "started"}
    return Entry(Row(name=name, **{**facts, **keys}), Figures(cpu, 1 << 20))  # type: ignore[arg-type]


ROWS = [
    entry("mail", 5, 1.0, age=10.0, pids=(30,), group=Group.TROUBLE, state="restarting", why="exit 1: refused"),
    entry("Export", 1, 90.0, age=500.0, pids=(20,), restarts=3),
    entry("keeper", 2, 5.0, age=90.0, pids=(10,), group=Group.FINISHED, state="finished"),
]


@pytest.mark.parametrize(
    ("heading", "names"),
    [
        ("", ["mail", "Export", "keeper"]),
        ("SLOT", ["Export", "keeper", "mail"]),
        ("NAME", ["Export", "keeper", "mail"]),
        ("STATE", ["mail", "Export", "keeper"]),
        ("PID", ["keeper", "Export", "mail"]),
        ("FOR", ["Export", "keeper", "mail"]),
        ("RST", ["Export", "mail", "keeper"]),
        ("CPU", ["Export", "keeper", "mail"]),
        ("MEM", ["mail", "Export", "keeper"]),
    ],
)
def test_sorted_by_each_column(heading: str, names: list[str]) -> None:
    """Each column has an order; what is equal in it stays in the order of the live view."""
    assert [each.row.name for each in arrange(ROWS, sort_by=heading)] == names
    assert {each.row.name for each in arrange(ROWS, sort_by=heading, is_reversed=True)} == set(names)


def test_every_column_can_be_sorted_by_whatever_is_missing() -> None:
    """A row without an age, a process or figures sorts, too."""
    bare = Entry(Row(group=Group.TROUBLE, slotno=1 << 30, slot="-", name="?", type="?", state="broken plugin"))
    for column in COLUMNS:
        assert len(arrange([*ROWS, bare], sort_by=column.heading)) == 4
        assert cell(bare, column._replace(width=12))


@pytest.mark.parametrize(
    ("pattern", "names"),
    [("", 3), ("EXP", 1), ("refused", 1), ("started", 1), ("mail exit", 1), ("mail export", 0), ("30", 1), ("[red](.*", 0)],
)
def test_filter(pattern: str, names: int) -> None:
    """All words have to be found, in whatever case; they are words and no patterns."""
    assert len(arrange(ROWS, pattern=pattern)) == names


def test_finished_can_be_hidden() -> None:
    """What ended well can be left out."""
    assert [each.row.name for each in arrange(ROWS, hides_finished=True)] == ["mail", "Export"]


@pytest.mark.parametrize("width", [1, 10, 40, 79, 80, 100, 160, 400])
def test_columns_fit(width: int) -> None:
    """Columns are as wide as the terminal; what matters least goes first."""
    columns = columns_for(width)
    if width >= 60:
        assert sum(column.width + 1 for column in columns) <= width + 1
    if width >= 79:
        assert {"CPU", "MEM", "FOR", "STATE", "ACTIVITY / WHY"} <= {column.heading for column in columns}
    if width >= 100:
        assert len(columns) == len(COLUMNS)


def test_a_cell_is_as_wide_as_its_column() -> None:
    """Wide characters, long names: each cell has the width of its column and the gap to the next one."""
    wide = entry("漢字" * 40, why="a\u0301" * 200)
    for heading in BY_HEADING:
        column = BY_HEADING[heading]._replace(width=17)
        assert cell_len(cell(wide, column)) == 18
