"""The picture, as text: what a person sees at each width."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from bgworker.tui import model
from bgworker.tui.figures import Figures
from bgworker.tui.render import Columns, columns_for, cut_end, cut_middle, render

EVENT = "02:14:03 order-drain (5120) exited with code 1 after 0.8s: connection refused; restart in 10s, try 3"
FIGURES = {4715: Figures(0.2, 14 * 2**20), **{4705 + n: Figures(6.0, 14 * 2**20) for n in range(7)}}


AT_100 = """\
bgworker  run  up 3d04h  pid 4711  /srv/shop/data                              12 of 64 slots in use
database  embedded, read-write  crashes 0      1 restarting  1 waiting  1 not registered  10 started
 SLOT NAME                   STATE              PID    FOR  RST  CPU   MEM ACTIVITY / WHY
  3.2 order-drain            restart in 4s        -     6s    3    -     - exit 1: connection refus…
    - too-many               not registered       -      -    -    -     - too many background work…
 12.1 report nightly         waiting              -      -    0    -     - database is a standby; s…
  1.1 worker_spi worker 1    started           4715  3d04h    0   0%   14M idle: WorkerSpiMain
  2.1 notify_demo listener   started           4702    45s    0    -     - -
  4.1 heartbeat              started           4704  1h01m    0    -     - -
    . export (7)             started x7           -   12s+    0  42%   98M order 42 (oldest, 5.9)
02:14:03 order-drain (5120) exited with code 1 after 0.8s: connection refused; restart in 10s, try 3
"""

AT_80 = """\
bgworker  run  up 3d04h  pid 4711  /srv/shop/data          12 of 64 slots in use
database  embedded, read-write  crashes 0
1 restarting  1 waiting  1 not registered  10 started
 SLOT NAME                    STATE             FOR ACTIVITY / WHY
  3.2 order-drain             restart in 4s      6s exit 1: connection refused
    - too-many                not registered      - too many background workers
 12.1 report nightly          waiting             - database is a standby; star…
  1.1 worker_spi worker 1     started         3d04h idle: WorkerSpiMain
  2.1 notify_demo listener    started           45s -
  4.1 heartbeat               started         1h01m -
    . export (7)              started x7       12s+ order 42 (oldest, 5.9)
02:14:03 order-drain (5120) exited with code 1 after 0.8s: connection refused; …
"""

AT_40 = """\
bgworker  run  u…  12 of 64 slots in use
database  embedded, read-write  crashes…
1 restarting  1 waiting  1 not register…
 SLOT NAME         STATE
  3.2 order-drain  restart in 4s
    - too-many     not registered
 12.1 report…ghtly waiting
  1.1 worker…ker 1 started
  2.1 notify…tener started
  4.1 heartbeat    started
    . export (7)   started x7
"""


def draw(status: dict[str, Any], now: float, width: int, height: int | None = None, *, color: bool = False, **options: Any) -> str:
    """What a terminal of this size gets."""
    output = io.StringIO()
    console = Console(
        file=output,
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        no_color=not color,
        highlight=False,
    )
    console.print(render(model.build(status, now), width, height, **options))
    return output.getvalue()


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


def test_at_100_columns(shop: dict[str, Any], now: float) -> None:
    """The whole table: two lines of head, fixed columns, trouble on top, events at the bottom."""
    assert lines(draw(shop, now, 100, 30, figures=FIGURES, events=[EVENT])) == lines(AT_100)


def test_at_80x24(shop: dict[str, Any], now: float) -> None:
    """At 80 columns CPU, MEM, PID and RST have gone, and the counts have a line of their own."""
    assert lines(draw(shop, now, 80, 24, figures=FIGURES, events=[EVENT])) == lines(AT_80)


def test_at_40_columns(shop: dict[str, Any], now: float) -> None:
    """A very narrow terminal still tells who and how."""
    assert lines(draw(shop, now, 40, 24)) == lines(AT_40)


@pytest.mark.parametrize("width", [1, 2, 5, 10, 20, 33, 40, 60, 79, 81, 99, 120, 160, 300])
@pytest.mark.parametrize("height", [1, 3, 5, 24, None])
def test_no_size_breaks_the_picture(shop: dict[str, Any], now: float, width: int, height: int | None) -> None:
    """At any size every line fits the terminal, and the picture is no higher than it once there is room for the head."""
    drawn = draw(shop, now, width, height, figures=FIGURES, events=[EVENT] * 20, gone="host is gone").splitlines()
    assert all(cell_len(line) <= width for line in drawn)
    if height is not None and height > 5:
        assert len(drawn) <= height


def test_columns_leave_in_order() -> None:
    """As the terminal narrows CPU goes first, then MEM, PID and RST; all have gone at 80."""
    gone = [sorted({"CPU", "MEM", "PID", "RST"} - columns_for(width).optional) for width in (100, 96, 90, 84, 80)]
    assert gone == [[], ["CPU"], ["CPU", "MEM"], ["CPU", "MEM", "PID"], ["CPU", "MEM", "PID", "RST"]]


def test_columns_depend_on_the_width_alone(make_slot: Any, make_status: Any, now: float) -> None:
    """No name, however long, moves a column."""
    short, long = (draw(make_status(make_slot(1, name)), now, 100).splitlines()[-2] for name in ("a", "x" * 95))
    assert short == long


@pytest.mark.parametrize(
    ("text", "width", "cut"),
    [
        ("order-drain", 11, "order-drain"),
        ("export for customer 17", 12, "export…er 17"),
        ("名前の長いワーカー 17", 12, "名前の…ー 17"),
        ("名前の長いワーカー", 5, "名…ー"),
        ("abc", 1, "…"),
        ("abc", 0, ""),
    ],
)
def test_names_are_cut_in_the_middle(text: str, width: int, cut: str) -> None:
    """Both ends of a name survive, and the cut is measured in cells, not in characters."""
    assert cut_middle(text, width) == cut
    assert cell_len(cut) <= width


def test_reasons_are_cut_at_the_end() -> None:
    """A reason says the most at its beginning."""
    assert cut_end("connection refused", 11) == "connection…"
    assert cut_end("接続が拒否されました", 6) == "接続…"
    assert cut_end("abc", 0) == ""


def test_a_low_terminal_cuts_the_healthy_rows(shop: dict[str, Any], now: float) -> None:
    """What does not fit is counted, and it is never the trouble on top that is left out."""
    drawn = lines(draw(shop, now, 80, 9, events=[EVENT]))
    assert len(drawn) == 9
    assert "order-drain" in drawn[4]
    assert drawn[7] == "      and 4 more rows; `bgworker status --all` prints them all"
    assert drawn[8].startswith("02:14:03")


def test_colour_only_on_what_needs_a_human(shop: dict[str, Any], now: float) -> None:
    """A healthy table has no escape sequence at all; trouble has, in its state and its reason."""
    drawn = draw(shop, now, 100, color=True).splitlines()
    coloured = [line for line in drawn if "\x1b[" in line]
    assert [("order-drain" in line or "too-many" in line or "restarting" in line) for line in coloured] == [True] * 3
    assert all("\x1b[31m" in line for line in coloured)
    shop["slots"] = [slot for slot in shop["slots"] if slot["state"] == "started"]
    shop["rejected"] = []
    assert "\x1b" not in draw(shop, now, 100, color=True)


def test_no_color_keeps_the_words(shop: dict[str, Any], now: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With NO_COLOR the picture is the same, without a colour."""
    monkeypatch.setenv("NO_COLOR", "1")
    output = io.StringIO()
    console = Console(file=output, width=100, force_terminal=True, color_system="standard", highlight=False)
    console.print(render(model.build(shop, now), 100))
    assert "\x1b[31m" not in output.getvalue()
    assert "restart in 4s" in output.getvalue()


def test_a_dead_host_is_dimmed(shop: dict[str, Any], now: float) -> None:
    """Host gone: the last table, dimmed, and how it died below it."""
    drawn = draw(shop, now, 100, 24, color=True, gone="02:14:05 host (PID 4711) is gone: signal 9").splitlines()
    assert all("\x1b[2" in line for line in drawn[:-1] if line.strip())
    assert "is gone: signal 9" in drawn[-1]


def test_nothing_of_a_worker_is_markup(make_slot: Any, make_status: Any, now: float) -> None:
    """T61: names and texts that look like markup or escape sequences are shown as they are, or made inert."""
    status = make_status(
        make_slot(1, "[bold]x[/] [/bold", activity={"state": "", "text": "[red]a\x1b[31m:smile:", "wait_event": ""})
    )
    drawn = draw(status, now, 100, color=True)
    assert "[bold]x[/] [/bold" in drawn
    assert "[red]a?[31m:smile:" in drawn
    assert "\x1b" not in drawn


def test_a_lost_database_is_marked(shop: dict[str, Any], now: float) -> None:
    """A database that does not answer is trouble of its own, in the second line."""
    shop["host"]["database"] = {"kind": "external", "phase": "unreachable", "detail": "connection refused", "url": ""}
    line = draw(shop, now, 160, color=True).splitlines()[1]
    assert line.startswith("\x1b[31mdatabase  external, unreachable: connection refused")


def test_narrow_columns_have_widths() -> None:
    """The last column goes before it becomes useless, and the name takes what it leaves."""
    assert columns_for(40) == Columns(name=12, why=0, has_age=False, optional=frozenset())
    assert columns_for(80).why == 28
