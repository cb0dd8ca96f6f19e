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
from textual.widgets import Input, OptionList, Static
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


class NumberOfInstances(ModalScreen[int | None]):
    """Asks how many instances of a worker there are to be."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "none"),
        Binding("up,plus", "step(1)", show=False, priority=True),
        Binding("down,minus", "step(-1)", show=False, priority=True),
    ]

    def __init__(self, name: str, count: int) -> None:
        super().__init__()
        self._worker_name, self._count = clean(name), count

    def compose(self) -> ComposeResult:
        """Return the field."""
        with Vertical(classes="dialog"):
            count = f"{self._count} instance{'' if self._count == 1 else 's'}"
            yield Static(Text(f"{self._worker_name} has {count}. How many are there to be?", style="bold"), markup=False)
            yield Static(Text("Those with the highest numbers are stopped first."), markup=False)
            yield Input(str(self._count), type="integer", max_length=4, compact=True, id="count")
            yield Static(Text("enter scale   + - one more, one less   escape none"), markup=False)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Keep it: for the view below it would be a filter."""
        event.stop()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Return the number; what is none asks for nothing."""
        event.stop()
        self.dismiss(int(event.value) if event.value.isdecimal() else None)

    def action_step(self, step: int) -> None:
        """Have one more, or one less."""
        field = self.query_one(Input)
        field.value = str(max(1, (int(field.value) if field.value.isdecimal() else self._count) + step))

    def action_leave(self) -> None:
        """Change nothing."""
        self.dismiss(None)


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
