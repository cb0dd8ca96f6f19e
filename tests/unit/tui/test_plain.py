"""The table in a pipe."""

from __future__ import annotations

from typing import Any

from bgworker.tui import model, plain


def test_one_row_each_with_full_names(shop: dict[str, Any], now: float) -> None:
    """A pipe gets every worker in a row of its own, nothing cut, columns parted by two spaces."""
    shop["slots"][1]["bgw_name"] = "a name of quite some length that no terminal of eighty columns would show"
    drawn = list(plain.lines(model.build(shop, now, fold=False)))
    assert drawn[0] == "bgworker  run  up 3d04h  pid 4711  /srv/shop/data  12 of 64 slots in use"
    assert drawn[1] == "database  embedded, read-write  crashes 0  1 restarting  1 waiting  1 not registered  10 started"
    assert drawn[2].split("  ")[0] == "SLOT"
    assert len(drawn) == 3 + 13
    assert any("a name of quite some length that no terminal of eighty columns would show  started" in line for line in drawn)
    assert drawn[3].endswith("exit 1: connection refused")
    assert not any(line.endswith(" ") for line in drawn)


def test_columns_line_up(shop: dict[str, Any], now: float) -> None:
    """Every cell of a column starts where its heading does."""
    drawn = list(plain.lines(model.build(shop, now, fold=False)))[2:]
    state = drawn[0].index("STATE")
    assert all(line[state - 2 : state] == "  " and line[state] != " " for line in drawn)
