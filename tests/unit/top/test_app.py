"""The full-screen view in front of a host that is a dictionary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.top.conftest import FakeHost, Script, View, slot, status
from textual.widgets import Input

from bgworker.errors import PermissionDenied
from bgworker.top.acts import instances_of
from bgworker.top.dialogs import Question, Words
from bgworker.top.panes import Pane
from bgworker.top.table import Workers

Show = Callable[..., None]


def chosen(view: View) -> str:
    entry = view.app.query_one(Workers).chosen
    return "" if entry is None else entry.row.name


def test_the_table_and_the_chosen_worker(show: Show) -> None:
    """Head, table, chosen worker, panes and keys stand on the screen."""

    async def script(view: View) -> None:
        screen = view.screen()
        assert "bgworker  run  up 1h00m  pid 4711  /srv/shop/data" in screen
        assert "3 of 64 slots in use" in screen
        assert "keeper (0.1) pid 4194304 started: idle: keeperMain" in screen
        for word in ("SLOT", "STATE", "CPU", "MEM", "ACTIVITY / WHY", "l log", "h history", "e events", "terminate", "quit"):
            assert word in screen

    show(script)


def test_80_by_24_has_everything(show: Show) -> None:
    """On a terminal of 80 by 24 no line is longer than that, and processor time, memory and reason have their place."""

    async def script(view: View) -> None:
        lines = view.screen().split("\n")
        assert len(lines) == 24
        heading = next(line for line in lines if "SLOT" in line)
        assert [word for word in ("NAME", "STATE", "FOR", "RST", "CPU", "MEM", "ACTIVITY / WHY") if word in heading][-1] == (
            "ACTIVITY / WHY"
        )
        assert "q quit" in lines[-1]

    show(script, size=(80, 24))


@pytest.mark.parametrize("size", [(20, 6), (40, 10), (300, 80)])
def test_any_size(show: Show, size: tuple[int, int]) -> None:
    """A terminal of any size is drawn on, and may change its size."""

    async def script(view: View) -> None:
        await view.pilot.resize_terminal(100, 30)
        await view.until(lambda: "ACTIVITY / WHY" in view.screen())
        assert view.names() == ["keeper", "export", "mail"]

    show(script, size=size)


def test_without_colour(show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    """With NO_COLOR nothing on the screen has a colour of its own; the cursor and trouble are still seen."""
    import os

    async def script(view: View) -> None:
        view.host.facts = status(
            slot(0, "keeper"), slot(1, "export", state="waiting_restart", last_exit={"code": 1, "reason": "x"})
        )
        await view.look()
        filters = [filter_ for filter_ in view.app._filters if filter_.enabled]
        colours, is_reversed = set(), False
        for strip in view.app.screen._compositor.render_strips(view.app.screen.size):
            for segment in strip.apply_filter(filters[-1], view.app.screen.background_colors[1]):
                if segment.style is not None:
                    colours |= {colour.name for colour in (segment.style.color, segment.style.bgcolor) if colour is not None}
                    is_reversed = is_reversed or bool(segment.style.reverse)
        assert colours <= {"default"}
        assert is_reversed
        assert "restart in 9s" in view.screen()

    def with_no_color(script: Script) -> None:
        os.environ["NO_COLOR"] = "1"
        show(script)

    with_no_color(script)


def test_a_worker_in_trouble_comes_first_and_the_cursor_stays_with_its_worker(show: Show) -> None:
    """Rows may change places; the cursor goes with the worker that it is on, also when that is over or was started again."""

    async def script(view: View) -> None:
        await view.press("down", "down")
        assert chosen(view) == "mail"
        waiting = slot(2, "mail", state="waiting_restart", last_exit={"code": 1, "reason": "connection refused"})
        view.host.facts = status(slot(0, "keeper"), slot(1, "export"), waiting)
        await view.look()
        assert view.names() == ["mail", "keeper", "export"]
        assert chosen(view) == "mail"
        assert "exit 1: connection refused" in view.screen()
        view.host.facts = status(slot(0, "keeper"), slot(1, "export"), slot(7, "mail"))
        await view.look()
        assert chosen(view) == "mail"
        over = {"bgw_name": "mail", "slot": 7, "generation": 1, "last_exit": {"code": 0, "reason": "exit 0"}, "reason": "exit 0"}
        view.host.facts = status(slot(0, "keeper"), slot(1, "export"), finished=[over])
        await view.look()
        assert chosen(view) == "mail"
        await view.press("a")
        assert view.names() == ["keeper", "export"]
        view.host.facts = status()
        await view.look()
        assert "no worker is shown" in view.screen()
        await view.press("s", "r", "t", "x", "c", "h", "l")
        assert view.host.done == []

    show(script)


def test_sorting_by_key_and_by_a_click(show: Show) -> None:
    """Key o goes through the columns, O turns the order round, a click on a heading does both."""

    async def script(view: View) -> None:
        await view.press("o", "o")  # slot, name
        assert view.names() == ["export", "keeper", "mail"]
        await view.press("O")
        assert view.names() == ["mail", "keeper", "export"]
        heading = next(y for y, line in enumerate(view.screen().split("\n")) if "SLOT" in line)
        await view.pilot.click(offset=(view.screen().split("\n")[heading].index("FOR"), heading))
        assert view.names() == ["keeper", "export", "mail"]
        await view.pilot.click(offset=(view.screen().split("\n")[heading].index("FOR"), heading))
        assert view.names() == ["mail", "export", "keeper"]

    show(script)


def test_filter_while_typing(show: Show) -> None:
    """/ filters with each key; enter keeps the filter, escape takes it away. Keys that arrive together are words, not commands."""

    async def script(view: View) -> None:
        await view.type_ahead("/exps")
        await view.until(lambda: view.names() == [])
        await view.press("backspace")
        assert view.names() == ["export"]
        await view.press("enter")
        assert not view.app.query_one(Input).display
        assert view.names() == ["export"]
        assert "filter: exp" in view.screen()
        await view.press("escape")
        assert view.names() == ["keeper", "export", "mail"]
        assert view.host.done == []

    show(script)


def test_stopping_is_asked_for_first(show: Show) -> None:
    """Terminate and restart ask; only y does it. Start does not ask."""

    async def script(view: View) -> None:
        await view.press("t")
        await view.until(lambda: isinstance(view.app.screen, Question))
        assert "Terminate keeper (0.1)?" in view.screen()
        await view.press("enter")
        await view.press("r", "escape")
        assert view.host.done == []
        await view.press("t", "y")
        await view.until(lambda: view.host.done)
        await view.press("down", "r", "y")
        await view.until(lambda: len(view.host.done) == 2)
        await view.press("s")
        await view.until(lambda: len(view.host.done) == 3)
        assert view.host.done == [("terminate", "0.1", True), ("restart", "1.1"), ("start", "1.1")]

    show(script)


def test_start_of_one_that_is_over_is_by_name(show: Show, host: FakeHost) -> None:
    """A worker that is over has no slot any more; it is started by the very name that it was registered with."""
    over = {"bgw_name": "two  spaces", "slot": 3, "generation": 2, "last_exit": None, "reason": "terminated by an operator"}
    host.facts = status(finished=[over])

    async def script(view: View) -> None:
        await view.press("s")
        await view.until(lambda: view.host.done)
        assert view.host.done == [("start", "two  spaces")]

    show(script)


def test_signals(show: Show) -> None:
    """A signal is chosen from a list; one that ends a worker is asked about."""

    async def script(view: View) -> None:
        await view.press("x")
        await view.until(lambda: "SIGUSR1" in view.screen())
        await view.press("down", "enter")
        await view.until(lambda: view.host.done)
        await view.press("x")
        await view.until(lambda: "SIGUSR1" in view.screen())
        await view.press("end", "enter")
        await view.until(lambda: "Send SIGKILL to keeper" in view.screen())
        await view.press("n")
        await view.press("x")
        await view.until(lambda: "SIGUSR1" in view.screen())
        await view.press("escape")
        assert view.host.done == [("signal", "0.1", "SIGUSR1")]

    show(script)


def test_another_number_of_instances(show: Show, host: FakeHost) -> None:
    """Key i asks how many, of the group that the row is one of; the number that there is changes nothing."""
    host.facts = status(*(slot(n, f"web-{n + 1}", config={"instance": n + 1}) for n in range(3)), slot(3, "mail-1", age=1))

    async def script(view: View) -> None:
        await view.press("i")
        await view.until(lambda: "web has 3 instances. How many are there to be?" in view.screen())
        await view.press("enter")
        await view.press("i", "escape")
        assert view.host.done == []
        await view.press("i", "end", "backspace", "1", "2", "enter")
        await view.until(lambda: view.host.done)
        await view.press("i", "minus", "enter")
        await view.until(lambda: len(view.host.done) == 2)
        await view.press("i", "plus", "up", "enter")
        await view.until(lambda: len(view.host.done) == 3)
        assert view.host.done == [("scale", "web", 12), ("scale", "web", 2), ("scale", "web", 5)]
        await view.press("G", "i")
        await view.until(lambda: '"mail-1" is no instance of a worker' in view.screen())
        await view.press("escape")

    show(script)


def test_whose_instances_are_meant() -> None:
    """A name with a number is an instance only if the host says so of others; one that is over belongs to those that are left."""
    facts = status(
        *(slot(n, f"web-{n + 1}", config={"instance": n + 1}) for n in range(2)), slot(2, "mail-1", config={"instance": 0})
    )
    assert instances_of(facts, "web-2") == ("web", 2)
    assert instances_of(facts, "web-7") == ("web", 2)
    for name in ("mail-1", "web", "web-x", "other-1"):
        assert instances_of(facts, name) == ("", 0)


def test_a_refusal_is_shown_in_its_parts(show: Show, host: FakeHost) -> None:
    """An error of the host is primary, detail and hint in the view, whatever characters are in it; the view goes on."""
    host.refusal = PermissionDenied("may not [/bold] do that", "Detail \x1b[2J[red].", "Hint [link=x].")

    async def script(view: View) -> None:
        await view.press("s")
        await view.until(lambda: isinstance(view.app.screen, Words))
        screen = view.screen()
        assert "ERROR:  may not [/bold] do that" in screen
        assert "DETAIL:  Detail ?[2J[red]." in screen
        assert "HINT:  Hint [link=x]." in screen
        await view.press("escape")
        await view.look()

    show(script)


def test_hostile_text_is_inert(show: Show, host: FakeHost) -> None:
    """Names, reasons and explanations with markup, ESC, C1 and bidi controls are shown, and obeyed by nobody."""
    hostile = "[/bold][red]\x1b[31m\x9b2J\u202e[/"
    activity = {"state": "running", "text": hostile, "wait_event": ""}
    rejected = [{"bgw_name": hostile, "error": hostile}]
    host.facts = status(
        slot(0, hostile, activity=activity), rejected=rejected, broken_plugins=[{"name": hostile, "error": hostile}]
    )

    async def script(view: View) -> None:
        for keys in (("h", "l", "e", "t"), ("escape", "x"), ("escape", "c", "C", "/")):
            await view.press(*keys)
            await view.look()
            assert not {"\x1b", "\x9b", "\u202e"} & set(view.screen())
        await view.press(*hostile[:12], "enter", "h")
        await view.press("escape")
        await view.until(lambda: "why" in view.screen())
        assert "[/bold]" in view.screen()

    show(script)


def test_history_says_why(show: Show) -> None:
    """The history pane has what `bgworker why` says, as it is, and is asked for again when something has changed."""

    async def script(view: View) -> None:
        await view.press("h")
        await view.until(lambda: "why 0.1 is so [/bold]" in view.screen())
        assert "  Traceback ?[31m[red]" in view.screen()
        await view.press("down")
        await view.until(lambda: "why 1.1 is so" in view.screen())

    show(script)


def test_help_palette_and_leaving(show: Show) -> None:
    """? shows the keys, ctrl+p the commands, q leaves with exit code 0."""

    async def script(view: View) -> None:
        await view.press("?")
        await view.until(lambda: "send it a signal" in view.screen())
        await view.press("escape", "ctrl+p", *"termi")
        await view.until(lambda: "Terminate worker" in view.screen(), "the palette")
        await view.press("enter")
        await view.until(lambda: "Terminate keeper (0.1)?" in view.screen())
        await view.press("n")
        await view.leave()
        assert view.app.return_value == 0

    show(script)


def test_copying(show: Show) -> None:
    """Key c copies the name as it was registered, C the row."""

    async def script(view: View) -> None:
        await view.press("c")
        assert view.app.clipboard == "keeper"
        await view.press("C")
        assert view.app.clipboard.split("\t")[:3] == ["0.1", "keeper", "started"]

    show(script)


def test_a_burst_is_one_picture(show: Show) -> None:
    """Three hundred events that come together cost the host a question or two and the terminal as many pictures."""

    async def script(view: View) -> None:
        await view.look()
        asked, shown = view.host.asked, view.app.pictures_shown
        for number in range(300):
            view.host.stream.incoming.put({"event": "host", "at": None, "message": f"event {number}"})
        await view.press("e")
        await view.until(lambda: "event 299" in view.screen())
        assert view.host.asked - asked <= 3
        assert view.app.pictures_shown - shown <= 3

    show(script)


def test_only_what_changed_is_drawn(show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture in which one row is another has that row drawn, up to what changed; one that is the same has nothing drawn."""

    async def script(view: View) -> None:
        await view.look()
        table = view.app.query_one(Workers)
        drawn: list[Any] = []
        monkeypatch.setattr(Workers.__base__, "refresh", lambda _self, *regions, **options: drawn.append((regions, options)))
        view.app._draw()
        assert drawn == []
        view.host.facts["slots"][1]["restarts"] = 5
        asked = view.host.asked
        view.pictures.look()
        await view.until(lambda: view.host.asked > asked and drawn)
        monkeypatch.undo()
        assert len(drawn) == 1
        (region,) = drawn[0][0]
        assert (region.x, region.y, region.height) == (0, 2, 1)
        assert region.width < table.size.width

    show(script)


def test_host_gone_and_back(show: Show) -> None:
    """Host gone: the last table stays, dimmed, with how it died; leaving then is exit code 3. Host back: so is the view."""

    async def script(view: View) -> None:
        view.host.is_up = False
        await view.look()
        await view.until(lambda: "host (PID 4711) is gone: it was killed" in view.screen())
        assert "keeper" in view.screen()
        assert view.app.query_one(Workers).has_class("gone")
        await view.press("s")
        await view.until(lambda: "ERROR:  nobody answers" in view.screen())
        await view.press("escape")
        view.host.is_up = True
        view.pictures.look()
        await view.until(lambda: "is gone" not in view.screen())
        assert not view.app.query_one(Workers).has_class("gone")
        view.host.is_up = False
        await view.look()
        await view.until(lambda: view.app.gone)
        await view.leave()
        assert view.app.return_value == 3

    show(script)


def test_log_pane_follows_and_searches(show: Show, tmp_path: Any) -> None:
    """The log pane has the chosen worker's lines, follows them, waits while somebody reads, and finds what is searched for."""
    path = tmp_path / "log" / "workers" / "keeper.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    head = "2026-11-21 09:00:01.123 UTC [0.1 77] keeper: "
    path.write_text("".join(f"{head}line {n} [/bold] \x1b[31m\n" for n in range(100)))

    async def script(view: View) -> None:
        pane = view.app.query_one("#log", Pane)
        await view.until(lambda: "09:00:01 [0.1 77] line 99 [/bold]" in view.screen())
        assert "\x1b" not in view.screen()
        with path.open("a") as file:
            file.write(f"{head}a new one\n")
        await view.until(lambda: "a new one" in view.screen())
        await view.press("tab", "pageup")
        assert not pane.is_following
        with path.open("a") as file:
            file.write(f"{head}one more\n")
        await view.until(lambda: "paused, 1 new" in view.screen())
        assert "one more" not in view.screen()
        await view.press("/", *"LINE 4", "enter")
        assert '"LINE 4": 11 of 11' in view.screen()
        await view.press("n")
        assert '"LINE 4": 1 of 11' in view.screen()
        assert "] line 4 " in view.screen()
        await view.press("N", "N")
        assert "] line 48 " in view.screen()
        await view.press("f")
        await view.until(lambda: "one more" in view.screen())
        await view.press("escape", "down")
        await view.until(lambda: "nothing was written yet" in view.screen())

    show(script)
