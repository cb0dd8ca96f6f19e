"""Documents that repeat what the code says are compared with the code."""

from __future__ import annotations

import re
from pathlib import Path

from bgworker._core.table import TABLE, Event, Step

ROOT = Path(__file__).parents[2]


def slot_table() -> str:
    """Return the slot machine's table as Markdown: a row per event, a column per state."""
    header = "| event | " + " | ".join(state.value for state in TABLE) + " |"
    rows = [header, "|---" * (len(TABLE) + 1) + "|"]
    for event in Event:
        cells = []
        for row in TABLE.values():
            cell = row[event]
            cells.append(f"**{cell.next_state.value}** ({cell.action.value})" if isinstance(cell, Step) else "-")
        rows.append(f"| {event.value} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def test_architecture_shows_the_slot_table() -> None:
    """ARCHITECTURE.md shows the transition table as it is in the code."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    match = re.search(r"<!-- slot table: begin -->\n(.*)<!-- slot table: end -->", text, re.DOTALL)
    assert match is not None
    assert match[1].strip() == slot_table(), f"put this there:\n{slot_table()}"


def test_conformance_table_is_complete() -> None:
    """docs/conformance.md has each sentence, and each names a test that exists."""
    text = (ROOT / "docs" / "conformance.md").read_text()
    for number in range(1, 43):
        assert re.search(rf"^\| C{number:02} \|", text, re.MULTILINE), f"C{number:02} is missing"
    for name in re.findall(r"`((?:tests|plugins)/[^`:]+\.py)", text):
        assert (ROOT / name).is_file(), f"{name} does not exist"
