"""What stands above the view for a moment: a question, a choice of signals, an error, the keys.

Each text is shown as it is: names and reasons come from others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from bgworker._text import printable
from bgworker.errors import HostError
from bgworker.tui.words import clean

#: What can be sent to a worker's process, and what it usually means.
SIGNALS: Final = (
    ("SIGHUP", "read the settings again"),
    ("SIGUSR1", "set the latch"),
    ("SIGUSR2", "what the worker makes of it"),
    ("SIGINT", "cancel the query"),
    ("SIGTERM", "end; its restart time decides what then"),
    ("SIGQUIT", "end at once"),
    ("SIGSTOP", "halt"),
    ("SIGCONT", "go on"),
    ("SIGKILL", "be killed"),
)
#: Those that nobody should send by a slip.
STOPPING: Final = frozenset({"SIGTERM", "SIGQUIT", "SIGSTOP", "SIGKILL"})


class Question(ModalScreen[bool]):
    """Asks before something is stopped; y is yes, everything else is no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "yes"),
        Binding("n,escape,q,enter", "answer(False)", "no"),
    ]

    def __init__(self, question: str, consequence: str) -> None:
        super().__init__()
        self._question = question
        self._consequence = consequence

    def compose(self) -> ComposeResult:
        """Return the question."""
        with Vertical(classes="dialog"):
            yield Static(Text(clean(self._question), style="bold"), markup=False)
            yield Static(Text(clean(self._consequence)), markup=False)
            yield Static(Text("\ny yes   n no"), markup=False)

    def action_answer(self, is_yes: bool) -> None:
        """Give the answer."""
        self.dismiss(is_yes)


class SignalChoice(ModalScreen[str | None]):
    """Asks which signal."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "leave", "none"),
        Binding("j", "down", show=False),
        Binding("k", "up", show=False),
    ]

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name_shown = clean(name)

    def compose(self) -> ComposeResult:
        """Return the list."""
        with Vertical(classes="dialog"):
            yield Static(Text(f"Send a signal to {self._name_shown}", style="bold"), markup=False)
            yield OptionList(*(Option(Text(f"{name:8} {meaning}"), id=name) for name, meaning in SIGNALS), markup=False)
            yield Static(Text("enter send   escape none"), markup=False)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Return what was chosen."""
        event.stop()
        self.dismiss(event.option_id)

    def action_leave(self) -> None:
        """Choose none."""
        self.dismiss(None)

    def action_down(self) -> None:
        """Go down."""
        self.query_one(OptionList).action_cursor_down()

    def action_up(self) -> None:
        """Go up."""
        self.query_one(OptionList).action_cursor_up()


class Words(ModalScreen[None]):
    """Text to be read and put away: an error, the keys."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter,question_mark,space", "leave", "close"),
    ]

    def __init__(self, lines: Sequence[Text]) -> None:
        super().__init__()
        self._lines = lines

    def compose(self) -> ComposeResult:
        """Return the text."""
        with VerticalScroll(classes="dialog"):
            yield Static(Text("\n").join(self._lines), markup=False)
            yield Static(Text("\nescape close", style="dim"), markup=False)

    def action_leave(self) -> None:
        """Put it away."""
        self.dismiss(None)


def complaint(error: HostError) -> Words:
    """Return an error as a dialog: primary, detail and hint, as everywhere."""
    lines = [printable(part) for line in error.lines() for part in line.split("\n")]
    return Words([Text(line, style="bold red" if line.startswith("ERROR:") else "") for line in lines])


def keys(groups: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> Words:
    """Return what the keys do as a dialog."""
    lines: list[Text] = []
    for title, pairs in groups:
        lines += [Text(title, style="bold")] if title else []
        lines += [Text(f"  {key:8} {meaning}") for key, meaning in pairs]
    return Words(lines)
