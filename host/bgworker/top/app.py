"""The application: puts table and panes together, knows the keys, and asks the host for what they mean.

Draws when there is a new picture and at no other time; what can take long (the host, files, a
pager) happens in threads or with the screen given back.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import Screen
from textual.widgets import ContentSwitcher, Footer, Input, Static

from bgworker._text import printable
from bgworker.errors import HostError
from bgworker.top import acts, dialogs
from bgworker.top.actions import Act, act_on
from bgworker.top.doors import Child, Doors
from bgworker.top.feed import Picture
from bgworker.top.logs import Lines, LogReader
from bgworker.top.order import TROUBLE_FIRST, Entry, arrange, columns_for
from bgworker.top.pager import show_in_pager
from bgworker.top.panes import Pane
from bgworker.top.table import Workers
from bgworker.top.text import KEYS, PANES, head, told, wrapped
from bgworker.tui.health import slots_of
from bgworker.tui.render import TROUBLE_STYLE
from bgworker.tui.words import clean


class Top(App[int]):
    """The full-screen view of one host.

    Args:
        doors: What it needs from outside.
    """

    TITLE = "bgworker top"
    CSS_PATH = "top.tcss"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "help", key_display="?"),
        # What changes the focus has priority: it is done before the next key is handed on. Else keys that arrive together, as they
        # do over a slow link, would be commands where words were meant.
        Binding("slash", "find", "find", key_display="/", priority=True),
        Binding("tab,shift+tab", "switch", show=False, priority=True),
        Binding("s", "start", "start"),
        Binding("r", "restart", "restart"),
        Binding("t", "terminate", "terminate"),
        Binding("x", "signal", "signal"),
        Binding("i", "scale", show=False),
        Binding("l", "pane('log')", show=False),
        Binding("h", "pane('history')", show=False),
        Binding("e", "pane('events')", show=False),
        Binding("o", "sort(1)", "sort"),
        Binding("v", "pager", "view"),
        Binding("q", "leave", "quit"),
        Binding("O", "reverse", show=False),
        Binding("a", "finished", show=False),
        Binding("c", "copy(False)", show=False),
        Binding("C", "copy(True)", show=False),
        Binding("f", "follow", show=False),
        Binding("z", "zoom", show=False),
        Binding("escape", "escape", show=False),
        Binding("ctrl+c", "leave", show=False, priority=True),
    ]

    def __init__(self, doors: Doors) -> None:
        # NO_COLOR that is set to nothing is not set (no-color.org); textual takes any.
        if os.environ.get("NO_COLOR") == "":
            del os.environ["NO_COLOR"]
        self.environment = dict(os.environ)  # textual takes NO_COLOR out of it; a pager wants it
        # The terminal's own colours: they are what its user can read, and NO_COLOR leaves them out altogether.
        super().__init__(ansi_color=True)
        self._doors = doors
        #: What is shown.
        self.picture: Picture | None = None
        self._log_reader: LogReader | None = None
        self._log_number = 0
        self._sort_by = TROUBLE_FIRST
        self._is_reversed = False
        self._hides_finished = False
        self._filter = ""
        #: Whose exits the history pane shows, with what says that there are new ones.
        self._explained: tuple[object, ...] | None = None
        self._events_shown: Sequence[str] = ()
        #: How often the table was shown anew.
        self.pictures_shown = 0

    # -- the screen --------------------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """Return the widgets."""
        yield Static(id="head", markup=False)
        yield Static(id="gone", markup=False)
        yield Input(id="find", compact=True, select_on_focus=False)
        yield Workers(id="workers")
        with Vertical(id="below"):
            yield Static(id="chosen", markup=False)
            yield Static(id="title", markup=False)
            with ContentSwitcher(initial="log", id="panes"):
                yield Pane(id="log", is_following=True)
                yield Pane(id="history", is_following=False)
                yield Pane(id="events", is_following=True)
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        """Show the first picture and follow what comes."""
        self.theme = "ansi-dark"
        self.animation_level = "none"  # each frame would go over the link
        self._log_reader = LogReader(self._doors.data_directory, self._deliver)
        self.query_one(Workers).focus()
        self.query_one("#head", Static).update(Text("bgworker  starting ..."))
        self._draw_picture()
        if (child := self._doors.child) is not None:
            threading.Thread(target=self._wait_for, args=(child,), name="end of the host", daemon=True).start()
        self._doors.pictures.follow(lambda: self._from_thread(self._draw_picture))

    def on_unmount(self) -> None:
        """End the threads."""
        self._doors.pictures.close()
        if self._log_reader is not None:
            self._log_reader.close()

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Offer what the keys do in the command palette, too."""
        yield SystemCommand("Start worker", "s: start the chosen worker now", self.action_start)
        yield SystemCommand("Restart worker", "r: restart the chosen worker", self.action_restart)
        yield SystemCommand("Terminate worker", "t: stop the chosen worker and keep it down", self.action_terminate)
        yield SystemCommand("Send signal", "x: send a signal to the chosen worker", self.action_signal)
        yield SystemCommand("Scale instances", "i: have another number of instances of the chosen worker", self.action_scale)
        yield SystemCommand("Copy name", "c: copy the chosen worker's name", partial(self.action_copy, False))
        yield SystemCommand("Copy row", "C: copy the chosen worker's row", partial(self.action_copy, True))
        yield SystemCommand("Open log in pager", "v: all of the chosen worker's log", self.action_pager)
        for key, pane in PANES.items():
            yield SystemCommand(f"Show {pane}", f"{key}: the {pane} pane", partial(self.action_pane, pane))
        for column in columns_for(1000):
            yield SystemCommand(f"Sort by {column.heading}", "o: the next column", partial(self._sort_by_heading, column.heading))
        yield SystemCommand("Sort by trouble", "Trouble first, then by slot", partial(self._sort_by_heading, TROUBLE_FIRST))
        yield SystemCommand("Theme", "Change the colours", self.action_change_theme)
        yield SystemCommand("Keys", "?: what the keys do", self.action_help)
        yield SystemCommand("Quit", "q: leave", self.action_leave)

    # -- pictures ----------------------------------------------------------------------------------------------------------

    @property
    def gone(self) -> str:
        """How the host died; empty while it runs."""
        return self.picture.gone if self.picture is not None else ""

    def _wait_for(self, child: Child) -> None:
        """End with the host, and its exit code; runs in a thread of its own."""
        code = child.wait()
        self._from_thread(partial(self.exit, code))

    def leave_soon(self) -> None:
        """Leave, as q does; safe in a signal handler."""
        self._from_thread(self.action_leave)

    def _from_thread(self, act: Callable[[], object]) -> None:
        """Do it in the application's own thread, soon; safe in any thread, also while the application ends."""
        if self._loop is not None and self.is_running:
            try:
                self._loop.call_soon_threadsafe(self.call_later, act)
            except RuntimeError:  # the loop was closed in between
                pass

    def _draw_picture(self) -> None:
        picture = self._doors.pictures.take()
        if picture is None:
            return
        self.picture = picture
        self.pictures_shown += 1
        self._draw()
        if picture.events != self._events_shown:
            self._events_shown = picture.events
            self.query_one("#events", Pane).put(picture.events)

    def _draw(self) -> None:
        if self.picture is None:
            return
        picture = self.picture
        _update(self.query_one("#head", Static), head(picture, self.size.width))
        gone = self.query_one("#gone", Static)
        gone.display = bool(picture.gone)
        _update(gone, Text(picture.gone, style=TROUBLE_STYLE))
        workers = self.query_one(Workers)
        workers.set_class(bool(picture.gone), "gone")
        workers.show(
            arrange(
                picture.entries,
                sort_by=self._sort_by,
                is_reversed=self._is_reversed,
                pattern=self._filter,
                hides_finished=self._hides_finished,
            ),
            self._sort_by,
        )
        self._draw_chosen()
        self._draw_title()

    def _draw_chosen(self) -> None:
        entry = self.query_one(Workers).chosen
        words = Text("no worker is shown" if entry is None else told(entry), no_wrap=True, overflow="ellipsis")
        _update(self.query_one("#chosen", Static), words)
        if self._switcher().current == "history":
            self._explain()

    def _draw_title(self) -> None:
        current = self._switcher().current
        words = Text(no_wrap=True, overflow="ellipsis")
        for key, name in PANES.items():
            words.append(f" {key} {name} ", style="bold reverse" if name == current else "")
        state = self.query_one(f"#{current}", Pane).state_words
        words.append(f"  {state}" if state else "")
        if self._filter:
            words.append(f"  filter: {self._filter}")
        _update(self.query_one("#title", Static), words)

    def on_resize(self) -> None:
        """Write the head and the history for the new width."""
        self._explained = None
        self._draw()

    # -- who is chosen -----------------------------------------------------------------------------------------------------

    def on_workers_chosen(self, event: Workers.Chosen) -> None:
        """Show another worker's log."""
        event.stop()
        self._draw_chosen()
        self._read_log()

    def on_workers_sort_asked(self, event: Workers.SortAsked) -> None:
        """Sort by a column; a second time the other way round."""
        event.stop()
        if event.heading == self._sort_by:
            self.action_reverse()
        else:
            self._sort_by_heading(event.heading)

    def on_pane_changed(self, event: Pane.Changed) -> None:
        """Keep the title true."""
        event.stop()
        self._draw_title()

    def chosen(self) -> Entry | None:
        """Return the chosen row."""
        return self.query_one(Workers).chosen

    def raw_name(self, entry: Entry) -> str:
        """Return the name as it was registered: the view's has its spaces collapsed."""
        status = self.picture.status if self.picture is not None else {}
        for other in [*slots_of(status), *(status.get("finished") or ())]:
            if f"{other.get('slot')}.{other.get('generation')}" == entry.row.slot:
                return str(other.get("bgw_name"))
        return entry.row.name

    def _switcher(self) -> ContentSwitcher:
        return self.query_one("#panes", ContentSwitcher)

    # -- log and history ---------------------------------------------------------------------------------------------------

    def _read_log(self) -> None:
        entry = self.chosen()
        if self._log_reader is not None:
            self._log_number = self._log_reader.read((self.raw_name(entry),) if entry is not None else ("host",))

    def _deliver(self, lines: Lines) -> None:
        """Take lines from the thread that reads them."""
        self._from_thread(partial(self._show_lines, lines))

    def _show_lines(self, lines: Lines) -> None:
        if self._log_reader is not None:
            self._log_reader.taken()
        if lines.number != self._log_number:
            return
        pane = self.query_one("#log", Pane)
        if lines.is_begin:
            pane.put([lines.error] if lines.error else lines.lines or ["nothing was written yet"])
            pane.follow(True)
        else:
            pane.add(lines.lines)

    def _explain(self) -> None:
        """Say why the chosen worker is as it is, again when that has changed."""
        entry, picture = self.chosen(), self.picture
        if entry is None or picture is None:
            return
        wanted = (entry.key, entry.row.state, entry.row.restarts, entry.row.pids, picture.gone)
        if wanted == self._explained:
            return
        if self._explained is None or self._explained[0] != wanted[0]:
            self.query_one("#history", Pane).put(())  # from the top: it is somebody else's
        self._explained = wanted
        name = entry.row.slot if entry.row.slot != "-" else entry.row.name

        def work() -> None:
            try:
                lines = list(self._doors.explain(name, picture.status))
            except (HostError, OSError) as error:
                lines = error.lines() if isinstance(error, HostError) else [f"could not be read: {error}"]
            self._from_thread(partial(self._show_explanation, wanted, lines))

        self.run_worker(work, thread=True, group="explain", exclusive=True)

    def _show_explanation(self, wanted: object, lines: Sequence[str]) -> None:
        if wanted == self._explained:
            parts = [printable(part) for line in lines for part in line.split("\n")]
            pane = self.query_one("#history", Pane)
            pane.put([piece for part in parts for piece in wrapped(part, self.size.width - 1)])

    # -- keys: looking -----------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leave the keys with priority to dialogs and to the field where words are typed."""
        if action == "find":
            return len(self.screen_stack) == 1 and not isinstance(self.focused, Input)
        return len(self.screen_stack) == 1 if action == "switch" else True

    def action_switch(self) -> None:
        """Go from the table to the pane, or back."""
        is_pane = isinstance(self.focused, Pane)
        self.screen.set_focus(self.query_one(Workers) if is_pane else self.query_one(f"#{self._switcher().current}"))

    def action_help(self) -> None:
        """Show the keys."""
        end = "leave; the host goes on" if self._doors.child is None else "stop the host, and leave; twice: at once"
        self.push_screen(dialogs.keys([*KEYS, ("", (("ctrl+p", "all commands"), ("q", end)))]))

    def action_leave(self) -> None:
        """End the view; with a host of its own, when that has ended."""
        if self._doors.child is not None:
            self._say("stopping the host")
            self._doors.child.stop()
            return
        self.exit(3 if self.gone else 0)

    def action_pane(self, name: str) -> None:
        """Show a pane."""
        self._switcher().current = name
        if self.focused is not None and isinstance(self.focused, Pane):
            self.query_one(f"#{name}").focus()
        self._draw_chosen()
        self._draw_title()

    def action_zoom(self) -> None:
        """Give the pane more room, or less."""
        self.screen.toggle_class("zoomed")
        if self.screen.has_class("zoomed"):
            self.query_one(f"#{self._switcher().current}").focus()
        else:
            self.query_one(Workers).focus()

    def action_follow(self) -> None:
        """Follow the end of the pane, or stay."""
        pane = self.query_one(f"#{self._switcher().current}", Pane)
        pane.follow(not pane.is_following)

    def action_sort(self, step: int) -> None:
        """Sort by the next column that is on the screen."""
        headings = [TROUBLE_FIRST, *(column.heading for column in columns_for(self.size.width - 1))]
        at = headings.index(self._sort_by) if self._sort_by in headings else 0
        self._sort_by_heading(headings[(at + step) % len(headings)])

    def action_reverse(self) -> None:
        """Turn the order round."""
        self._is_reversed = not self._is_reversed
        self._draw()

    def action_finished(self) -> None:
        """Hide those that ended well, or show them."""
        self._hides_finished = not self._hides_finished
        self._draw()

    def _sort_by_heading(self, heading: str) -> None:
        self._sort_by, self._is_reversed = heading, False
        self._draw()

    # -- keys: finding -----------------------------------------------------------------------------------------------------

    def action_find(self) -> None:
        """Ask for words: a filter of the table, or what to search for in the pane that has the focus."""
        field = self.query_one("#find", Input)
        is_search = isinstance(self.focused, Pane)
        field.set_class(is_search, "search")
        field.placeholder = "search" if is_search else "filter"
        field.value = "" if is_search else self._filter
        field.display = True
        # At once, and not after what is in the queue: keys that were typed ahead are words, not commands.
        self.screen.set_focus(field)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while it is typed."""
        event.stop()
        if not event.input.has_class("search") and event.input.display:
            self._filter = clean(event.value)
            self._draw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Search, or leave the filter as it is."""
        event.stop()
        is_search = event.input.has_class("search")
        self._close_field()
        if is_search:
            pane = self.query_one(f"#{self._switcher().current}", Pane)
            self.screen.set_focus(pane)
            pane.search(printable(event.value))

    def action_escape(self) -> None:
        """Take away what was typed last: a field, a search, the filter."""
        pane = self.query_one(f"#{self._switcher().current}", Pane)
        if self.query_one("#find").display:
            if not self.query_one("#find").has_class("search"):
                self._filter = ""
            self._close_field()
        elif isinstance(self.focused, Pane):
            pane.search("")
            self.screen.remove_class("zoomed")
            self.query_one(Workers).focus()
        else:
            self._filter = ""
        self._draw()

    def _close_field(self) -> None:
        self.query_one("#find", Input).display = False
        self.screen.set_focus(self.query_one(Workers))

    # -- keys: acting ------------------------------------------------------------------------------------------------------

    def action_start(self) -> None:
        """Start the chosen worker."""
        acts.start(self)

    def action_restart(self) -> None:
        """Restart the chosen worker."""
        acts.restart(self)

    def action_terminate(self) -> None:
        """Terminate the chosen worker."""
        acts.terminate(self)

    def action_signal(self) -> None:
        """Send a signal to the chosen worker."""
        acts.signal(self)

    def action_scale(self) -> None:
        """Have another number of instances of the chosen worker."""
        acts.scale(self)

    def action_copy(self, is_row: bool) -> None:
        """Copy the name or the row."""
        entry = self.chosen()
        if entry is None:
            return
        row = entry.row
        cells = (row.slot, row.name, row.state_words, row.pid_words, row.age_words, row.restarts_words, row.why)
        self.copy_to_clipboard("\t".join(cells) if is_row else self.raw_name(entry))
        self._say(f"copied {'the row' if is_row else 'the name'} of {row.name}")

    def action_pager(self) -> None:
        """Open the chosen worker's log in a pager."""
        entry = self.chosen()
        names = (self.raw_name(entry),) if entry is not None else ("host",)
        try:
            with self.suspend():
                show_in_pager(self._doors.data_directory, names, self.environment)
        except HostError as error:
            self.push_screen(dialogs.complaint(error))

    def act(self, act: Act, doing: str) -> None:
        """Ask the host for something, in a thread; say what came of it."""

        def work() -> None:
            error = act_on(self._doors.connect, act)
            self._doors.pictures.look()
            self._from_thread(partial(self._say, doing) if error is None else partial(self.push_screen, dialogs.complaint(error)))

        self.run_worker(work, thread=True, group="act")

    def _say(self, words: str) -> None:
        self.notify(clean(words), timeout=3, markup=False)


def _update(widget: Static, words: Text) -> None:
    """Show another text; the same one is not drawn again."""
    if getattr(widget, "shown_words", None) != (words.plain, str(words.spans)):
        widget.shown_words = (words.plain, str(words.spans))  # type: ignore[attr-defined]
        widget.update(words)
