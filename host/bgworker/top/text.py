"""What the screen says apart from its rows: the head, the chosen worker, the keys."""

from __future__ import annotations

import textwrap
from typing import Final

from rich.cells import cell_len
from rich.text import Text

from bgworker.top.feed import Picture
from bgworker.top.order import Entry
from bgworker.tui.plain import head_lines, holders_line, use_words
from bgworker.tui.render import GONE_STYLE, TROUBLE_STYLE, cut_middle

#: The panes, by the key that opens them.
PANES: Final = {"l": "log", "h": "history", "e": "events"}

KEYS: Final = (
    (
        "Table",
        (
            ("up, down", "choose a worker (k and j; page up, page down; g, G)"),
            ("/", "filter by words in name, state, pid or reason"),
            ("escape", "take the filter away"),
            ("o, O", "sort by the next column; turn the order round"),
            ("a", "hide workers that ended well, or show them"),
        ),
    ),
    (
        "The chosen worker",
        (
            ("s, r", "start it now; restart it"),
            ("t", "terminate it: it stays down until it is started"),
            ("x", "send it a signal"),
            ("i", "have another number of instances of it"),
            ("c, C", "copy its name; copy its row"),
            ("v", "open its whole log in a pager"),
        ),
    ),
    (
        "Panes",
        (
            ("l, h, e", "its log (UTC); why it is so; what happened"),
            ("tab", "go to the pane, and back"),
            ("/, n, N", "in a pane: search; next place; the one before"),
            ("f, z", "follow the end, or stay; whole screen, or half"),
        ),
    ),
)


def wrapped(line: str, width: int) -> list[str]:
    """Return a sentence as lines; what is indented was written by a worker, and stays as it is."""
    return [line] if line.startswith(" ") or not line else textwrap.wrap(line, max(20, width), subsequent_indent="  ")


def head(picture: Picture, width: int) -> Text:
    """Return the lines above the table: those of the live view, one below the other."""
    view = picture.view
    first, second = head_lines(view)
    used = use_words(view)
    room = width - cell_len(used) - 2
    if cell_len(first) > room and view.data_directory:
        # The directory is the one part that can be long; the state and the pid stand before it.
        short = cut_middle(view.data_directory, max(8, cell_len(view.data_directory) + room - cell_len(first)))
        first = first.removesuffix(view.data_directory) + short
    lines = [Text(f"{first}{' ' * max(2, width - cell_len(first) - cell_len(used))}{used}")]
    line = Text(second, style=TROUBLE_STYLE if view.is_database_lost else "")
    for words, needs_human in view.counts:
        line.append("  ")
        line.append(words, style=TROUBLE_STYLE if needs_human else "")
    lines.append(line)
    if view.holders:
        lines.append(Text(holders_line(view)))
    if picture.gone:
        for dimmed in lines:
            dimmed.stylize(GONE_STYLE)
    for each in lines:
        each.truncate(max(1, width), overflow="ellipsis")
    return Text("\n", no_wrap=True).join(lines)


def told(entry: Entry) -> str:
    """Return the chosen worker in one line, uncut."""
    row = entry.row
    pid = f" pid {row.pid_words}" if row.pids else ""
    return f"{row.name} ({row.slot}){pid} {row.state_words}{f': {row.why}' if row.why else ''}"
