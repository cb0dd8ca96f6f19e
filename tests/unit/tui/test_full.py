"""A host without a free slot."""

from __future__ import annotations

from typing import Any

import pytest

from bgworker.tui import model, plain
from bgworker.tui.render import render


def test_view_says_who_holds_the_slots(make_status: Any, make_slot: Any, now: float) -> None:
    """C14: when no slot is free the view says who has them, and only then."""
    rich_console = pytest.importorskip("rich.console")
    status = make_status(make_slot(0, "a"), make_slot(1, "b"), host={"max_worker_processes": 2})
    view = model.build(status, now)
    assert list(plain.lines(view))[2] == "no free slot; held by a (1, shop_queue), b (1, shop_queue)"
    console = rich_console.Console(width=60, color_system=None)
    with console.capture() as capture:
        console.print(render(view, 60))
    assert "no free slot; held by a (1, shop_queue), b (1, shop_queue)" in capture.get()
    status["host"]["max_worker_processes"] = 3
    assert not any("held by" in line for line in plain.lines(model.build(status, now)))
