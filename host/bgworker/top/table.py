"""The table of workers: textual's own, filled by position.

A row of the widget is a place on the screen and not a worker: when the order changes, cells get
other texts and nothing else happens. Only rows in which a text has changed are drawn again, up to that
text, which is what a slow link needs; the cursor follows its worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.events import Resize
from textual.geometry import Region
from textual.message import Message
from textual.widgets import DataTable

from bgworker.top.order import Column, Entry, cell, columns_for, padded
from bgworker.tui.render import TROUBLE_STYLE

#: Columns that are coloured where a row needs a human.
_COLOURED = ("STATE", "ACTIVITY / WHY")


class Workers(DataTable[Text]):
    """The workers, one row each."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", show=False),
        Binding("k", "cursor_up", show=False),
        Binding("g", "scroll_top", show=False),
        Binding("G", "scroll_bottom", show=False),
    ]

    class Chosen(Message):
        """Another worker is under the cursor."""

    class SortAsked(Message):
        """A heading was clicked on."""

        def __init__(self, heading: str) -> None:
            super().__init__()
            self.heading = heading

    #: Whether cells are being changed; textual asks for a refresh before the constructor has come so far.
    _is_quiet = False

    def __init__(self, **options: Any) -> None:
        super().__init__(cursor_type="row", zebra_stripes=False, cell_padding=0, **options)
        self._shown: Sequence[Entry] = ()
        self._layout_columns: list[Column] = []
        self._sorted_by = ""
        #: Text and style of each cell, by place.
        self._grid: list[list[tuple[str, str]]] = []
        #: Whom the application was told of last.
        self._told: tuple[str, str, str] | None = None

    @property
    def entries(self) -> Sequence[Entry]:
        """What is shown, in its order."""
        return self._shown

    @property
    def chosen(self) -> Entry | None:
        """The entry under the cursor; None in an empty table."""
        return self._shown[self.cursor_row] if 0 <= self.cursor_row < len(self._shown) else None

    def show(self, entries: Sequence[Entry], sorted_by: str = "") -> None:
        """Show these rows, in this order."""
        before = self.chosen
        if sorted_by != self._sorted_by:
            self._sorted_by, self._layout_columns = sorted_by, []  # the heading of the column says so
        self._shown = entries
        if not self._layout_columns:
            self._lay_out()
        self._match_row_count()
        self._is_quiet = True
        try:
            for y, entry in enumerate(entries):
                self._fill(y, entry)
        finally:
            self._is_quiet = False
        if before is not None:
            self._follow_worker(before)
        self._tell()

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False) -> Any:
        """Ask to be drawn; a changed row asks for itself alone, where textual would draw the whole table."""
        if self._is_quiet and not regions and not layout and not recompose:
            return self
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)

    def _fill(self, y: int, entry: Entry) -> None:
        """Put the texts of a row in place, and have it drawn up to the last one that is another."""
        end = changed_end = 0
        for x, column in enumerate(self._layout_columns):
            end += column.width + 1
            style = TROUBLE_STYLE if entry.row.needs_human and column.heading in _COLOURED else ""
            wanted = (cell(entry, column), style)
            if self._grid[y][x] != wanted:
                self._grid[y][x] = wanted
                self.update_cell_at(Coordinate(y, x), Text(wanted[0], style=style, no_wrap=True, end=""))
                changed_end = end
        line = y - self.scroll_offset.y + self.header_height
        # One region: textual sends a line from its beginning to the end of each region, so two would be the same text twice.
        if changed_end and self.header_height <= line < self.size.height:
            self.refresh(Region(0, line, changed_end, 1))

    def _match_row_count(self) -> None:
        while self.row_count > len(self._shown):
            self.remove_row(str(self.row_count - 1))
            self._grid.pop()
        while self.row_count < len(self._shown):
            self._grid.append([("", "")] * len(self._layout_columns))
            self.add_row(*(Text("") for _ in self._layout_columns), key=str(self.row_count))

    def _lay_out(self) -> None:
        """Make the columns for the width that there is."""
        # The scroll bar may come and go with the rows; columns must not move when it does.
        self._layout_columns = columns_for(max(1, (self.size.width or self.app.size.width) - 1))
        self.clear(columns=True)
        self._grid.clear()
        for column in self._layout_columns:
            style = "bold underline" if column.heading == self._sorted_by else "bold"
            self.add_column(Text(padded(column.heading, column), style=style), width=column.width + 1)

    def _follow_worker(self, worker: Entry) -> None:
        """Put the cursor where the worker is now; one that was started again has another slot, but its name."""
        keys = [entry.key for entry in self._shown]
        names = [entry.row.name for entry in self._shown]
        if worker.key in keys:
            place = keys.index(worker.key)
        elif worker.row.name in names:
            place = names.index(worker.row.name)
        else:
            return
        if place != self.cursor_row:
            self.move_cursor(row=place, animate=False)

    def _tell(self) -> None:
        key = self.chosen.key if self.chosen is not None else None
        if key != self._told:
            self._told = key
            self.post_message(self.Chosen())

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Tell that the cursor is on another worker."""
        event.stop()
        self._tell()

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        """Sort by what was clicked on."""
        event.stop()
        if event.column_index < len(self._layout_columns):
            self.post_message(self.SortAsked(self._layout_columns[event.column_index].heading))

    def on_resize(self, event: Resize) -> None:
        """Lay the columns out anew."""
        if self._layout_columns and event.size.width:
            self._layout_columns = []
            self.show(self._shown, self._sorted_by)
