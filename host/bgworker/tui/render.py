"""Draws a view with rich: fixed columns, cut names, colour only on what needs a human.

The only file that draws. It makes no decision about what is shown or in which order, that is
``model``'s. Whatever comes from workers goes through Text objects, never through markup.
Columns are as wide as the terminal lets them be and never as wide as their contents, so that
no row moves when another one changes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from rich.cells import cell_len
from rich.console import Group as Lines
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from bgworker.tui.figures import Figures
from bgworker.tui.model import STATE_WIDTH, Row, View
from bgworker.tui.plain import head_lines, holders_line, use_words
from bgworker.tui.words import percent, size

ELLIPSIS: Final = "…"
#: The one colour: what needs a human. NO_COLOR takes it away, the words stay.
TROUBLE_STYLE: Final = "red"
GONE_STYLE: Final = "dim"

_SLOT_WIDTH: Final = 5
_NAME_WIDTH: Final = 22
_NARROW_NAME_WIDTH: Final = 12
_FOR_WIDTH: Final = 6
#: The columns that go first when the terminal is narrow, in this order, with their widths.
_OPTIONAL: Final = (("CPU", 4), ("MEM", 5), ("PID", 7), ("RST", 4))
#: Cells that the last column keeps before another column goes; makes all four go at 80.
_WHY_WIDTH: Final = 25
#: Narrower than this, the last column says too little to be worth its place.
_LEAST_WHY_WIDTH: Final = 8
#: Below this width the counts get a line of their own; depends on nothing else, so that no row jumps.
_ONE_LINE_WIDTH: Final = 100


class Columns(NamedTuple):
    """Which columns there are, and how wide those are whose width the terminal decides."""

    name: int
    #: 0 leaves the last column out.
    why: int
    has_age: bool
    optional: frozenset[str]


def columns_for(width: int) -> Columns:
    """Return the columns for a terminal of this many cells; any width has an answer."""
    fixed = _SLOT_WIDTH + 1 + _NAME_WIDTH + 1 + STATE_WIDTH + 1 + _FOR_WIDTH + 1
    kept = dict(_OPTIONAL)
    for heading, _ in _OPTIONAL:
        if fixed + sum(w + 1 for w in kept.values()) + _WHY_WIDTH <= width:
            break
        del kept[heading]
    rest = width - fixed - sum(w + 1 for w in kept.values())
    if rest >= _WHY_WIDTH:
        # A wide terminal gives names a third of what is left over, up to the longest name of PostgreSQL.
        more = min((rest - _WHY_WIDTH) // 3, 64 - _NAME_WIDTH)
        return Columns(_NAME_WIDTH + more, rest - more, True, frozenset(kept))
    # The name gives way before the reason does.
    name = max(_NARROW_NAME_WIDTH, _NAME_WIDTH - (_WHY_WIDTH - rest))
    rest += _NAME_WIDTH - name
    has_age = rest >= _LEAST_WHY_WIDTH
    if not has_age:
        rest += _FOR_WIDTH + 1
    return Columns(name, rest if rest >= _LEAST_WHY_WIDTH else 0, has_age, frozenset())


def cut_middle(text: str, width: int) -> str:
    """Return the text in at most ``width`` cells, its middle replaced: both ends of a name tell workers apart."""
    if cell_len(text) <= width:
        return text
    if width <= 1:
        return ELLIPSIS[:width]
    room = width - 1
    head = cut_end(text, (room + 1) // 2, mark="")
    tail = cut_end(text[::-1], room - cell_len(head), mark="")[::-1]
    return f"{head}{ELLIPSIS}{tail}"


def cut_end(text: str, width: int, mark: str = ELLIPSIS) -> str:
    """Return the text in at most ``width`` cells, its end replaced by the mark."""
    if cell_len(text) <= width:
        return text
    used, kept = cell_len(mark), []
    for character in text:
        used += cell_len(character)
        if used > width:
            break
        kept.append(character)
    return "".join(kept) + (mark if width >= cell_len(mark) else "")


def render(
    view: View,
    width: int,
    height: int | None = None,
    figures: Mapping[int, Figures] | None = None,
    events: Sequence[str] = (),
    gone: str = "",
    notes: Sequence[str] = (),
) -> RenderableType:
    """Return the view as rich draws it.

    Args:
        view: What to show.
        width: Cells of the terminal.
        height: Lines of the terminal, or None where the view may be as long as it is.
        figures: CPU and memory by pid.
        events: Event lines, the oldest first; the last ones are shown below the table.
        gone: How the host died; dims everything else.
        notes: Lines of the caller's, at the very bottom.
    """
    head = _head(view, width)
    # Said once and meant to be read to the end: wrapped, where rows and events are cut.
    tail = [Text(part) for line in notes for part in _wrapped(line, width)]
    tail += [Text(part, style=TROUBLE_STYLE) for part in _wrapped(gone, width)]
    rows, left_out = list(view.rows), 0
    shown_events: Sequence[str] = ()
    if height is not None:
        room = height - len(head) - 1 - len(tail)
        shown_events = events[-max(1, min(8, room // 5)) :] if room > 4 else ()
        room -= len(shown_events)
        if len(rows) > room:
            left_out = len(rows) - max(0, room - 1)
            rows = rows[: max(0, room - 1)]
    body: list[RenderableType] = [*head, _table(rows, columns_for(width), figures or {})]
    if left_out:
        body.append(Text(cut_end(f"      and {left_out} more rows; `bgworker status --all` prints them all", width)))
    body += [Text(cut_end(line, width)) for line in shown_events]
    everything = Lines(*body)
    return Lines(_Dimmed(everything) if gone else everything, *tail)


def _wrapped(line: str, width: int) -> list[str]:
    return textwrap.wrap(line, max(1, width), break_on_hyphens=False)


class _Dimmed:
    """Draws something in the style of what is no longer true."""

    def __init__(self, renderable: RenderableType) -> None:
        self._renderable = renderable

    def __rich__(self) -> RenderableType:
        from rich.styled import Styled

        return Styled(self._renderable, GONE_STYLE)


def _head(view: View, width: int) -> list[Text]:
    first, second = head_lines(view)
    used = use_words(view)
    # The directory is the one part that can be long; the state and the pid stand before it.
    directory = view.data_directory
    room = width - cell_len(first) - cell_len(used) - 2
    if room < 0 and directory:
        keep = max(8, cell_len(directory) + room)
        first = first[: -len(directory)] + cut_middle(directory, keep)
    lines = [_apart(Text(first), Text(used), width)]
    counts = Text("  ").join(Text(words, style=TROUBLE_STYLE if needs_human else "") for words, needs_human in view.counts)
    left = Text(second, style=TROUBLE_STYLE if view.is_database_lost else "")
    lines += [_cropped(left, width), _cropped(counts, width)] if width < _ONE_LINE_WIDTH else [_apart(left, counts, width)]
    return [*lines, _cropped(Text(holders_line(view)), width)] if view.holders else lines


def _apart(left: Text, right: Text, width: int) -> Text:
    """Return one line with one text at each end; the left one is cut where both do not fit."""
    room = width - right.cell_len - 2
    if room < 10:
        return _cropped(left, width)
    left = _cropped(left, room)
    return Text.assemble(left, " " * (width - left.cell_len - right.cell_len), right)


def _cropped(text: Text, width: int) -> Text:
    text = text.copy()
    text.truncate(max(0, width), overflow="ellipsis")
    return text


def _table(rows: Sequence[Row], columns: Columns, figures: Mapping[int, Figures]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="", expand=False)

    def add(heading: str, width: int, *, right: bool = False) -> None:
        table.add_column(heading, width=width, no_wrap=True, overflow="crop", justify="right" if right else "left")

    add("SLOT", _SLOT_WIDTH, right=True)
    add("NAME", columns.name)
    add("STATE", STATE_WIDTH)
    if "PID" in columns.optional:
        add("PID", 7, right=True)
    if columns.has_age:
        add("FOR", _FOR_WIDTH, right=True)
    for heading, width in (("RST", 4), ("CPU", 4), ("MEM", 5)):
        if heading in columns.optional:
            add(heading, width, right=True)
    if columns.why:
        add("ACTIVITY / WHY", columns.why)
    for row in rows:
        table.add_row(*_cells(row, columns, figures))
    return table


def _cells(row: Row, columns: Columns, figures: Mapping[int, Figures]) -> list[Text]:
    style = TROUBLE_STYLE if row.needs_human else ""
    known = [figures[pid] for pid in row.pids if pid in figures]
    cells = [Text(row.slot), Text(cut_middle(row.name, columns.name)), Text(row.state_words, style=style)]
    if "PID" in columns.optional:
        cells.append(Text(row.pid_words))
    if columns.has_age:
        cells.append(Text(row.age_words))
    if "RST" in columns.optional:
        cells.append(Text(row.restarts_words))
    if "CPU" in columns.optional:
        cells.append(Text(percent(sum(f.cpu for f in known)) if known else "-"))
    if "MEM" in columns.optional:
        cells.append(Text(size(sum(f.memory for f in known)) if known else "-"))
    if columns.why:
        cells.append(Text(cut_end(row.why or "-", columns.why), style=style))
    return cells
