"""The panes below the table: lines that can be scrolled, searched, and followed while they grow.

textual's ``Log`` shows text as it is, without markup; what is found by a search is marked in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from rich.highlighter import Highlighter
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.events import MouseScrollUp
from textual.message import Message
from textual.widgets import Log

#: Lines that a pane holds; older ones are in the file.
MAX_LINES: Final = 5000
_FOUND_STYLE: Final = "reverse"


class Mark(Highlighter):
    """Marks what was searched for; case does not matter."""

    def __init__(self) -> None:
        self.wanted = ""

    def highlight(self, text: Text) -> None:
        """Mark each place in one line."""
        if self.wanted:
            plain, wanted = text.plain.lower(), self.wanted.lower()
            at = plain.find(wanted)
            while at >= 0:
                text.stylize(_FOUND_STYLE, at, at + len(wanted))
                at = plain.find(wanted, at + len(wanted))


class Pane(Log):
    """Lines of text.

    While it follows, new lines show at its end. When it does not, because somebody scrolled up or
    found something, nothing moves: new lines wait until it follows again.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", show=False),
        Binding("k", "scroll_up", show=False),
        Binding("g", "scroll_home", show=False),
        Binding("G", "scroll_end", show=False),
        Binding("n", "find(1)", "next found", show=False),
        Binding("N", "find(-1)", "previous found", show=False),
    ]

    class Changed(Message):
        """What stands in the title has changed."""

    def __init__(self, *, is_following: bool, **options: Any) -> None:
        super().__init__(highlight=True, max_lines=MAX_LINES, auto_scroll=False, **options)
        self.highlighter = self._mark = Mark()
        #: Whether the kind of pane grows at its end at all.
        self._grows = is_following
        self.is_following = is_following
        self._waiting: deque[str] = deque(maxlen=MAX_LINES)
        #: Line that a search is at; -1 for none.
        self._at = -1

    @property
    def state_words(self) -> str:
        """What the title says of it."""
        words = []
        if self._grows:
            words.append("following" if self.is_following else "paused")
            if self._waiting:
                words.append(f"{len(self._waiting)} new")
        if self._mark.wanted:
            found = self._found()
            place = f"{found.index(self._at) + 1} of {len(found)}" if self._at in found else f"{len(found)} found"
            words.append(f'"{self._mark.wanted}": {place}')
        return ", ".join(words)

    def put(self, lines: Sequence[str]) -> None:
        """Replace everything by these lines."""
        x, y = self.scroll_offset
        self.clear()
        self._waiting.clear()
        self._at = -1
        self._write(lines)
        if self.is_following:
            self.scroll_end(animate=False, immediate=True, x_axis=False)
        else:
            self.scroll_to(x, min(y, len(lines)), animate=False, immediate=True, force=True)
        self.refresh()
        self.post_message(self.Changed())

    def add(self, lines: Sequence[str]) -> None:
        """Put lines at the end, now or when it follows again."""
        if self.is_following:
            self._write(lines)
            self.scroll_end(animate=False, immediate=True, x_axis=False)
        else:
            self._waiting.extend(lines)
        self.post_message(self.Changed())

    def follow(self, is_following: bool) -> None:
        """Go to the end and stay there, or stay here."""
        if not self._grows or is_following == self.is_following:
            return
        self.is_following = is_following
        if is_following:
            waiting = list(self._waiting)
            self._waiting.clear()
            self.add(waiting)
        self.post_message(self.Changed())

    def search(self, wanted: str) -> None:
        """Mark this text, and go to the last place where it is; nothing ends the search."""
        self._mark.wanted = wanted
        self._at = -1
        self.notify_style_update()  # the lines that were drawn before have no marks
        if wanted:
            self.action_find(-1)
        self.refresh()
        self.post_message(self.Changed())

    def action_find(self, step: int) -> None:
        """Go to the next place, or the one before; round at the ends."""
        found = self._found()
        if not found:
            return
        self.follow(False)
        if step < 0:
            self._at = next((y for y in reversed(found) if self._at < 0 or y < self._at), found[-1])
        else:
            self._at = next((y for y in found if y > self._at), found[0])
        self.scroll_to(y=max(0, self._at - self.size.height // 2), animate=False, immediate=True, force=True)
        self.post_message(self.Changed())

    def action_scroll_up(self) -> None:
        """Scroll, and stay there."""
        self.follow(False)
        super().action_scroll_up()

    def action_page_up(self) -> None:
        """Scroll, and stay there."""
        self.follow(False)
        super().action_page_up()

    def action_scroll_home(self) -> None:
        """Go to the first line, and stay there."""
        self.follow(False)
        super().action_scroll_home()

    def action_scroll_end(self) -> None:
        """Go to the end, and follow."""
        super().action_scroll_end()
        self.follow(True)

    def on_mouse_scroll_up(self, _event: MouseScrollUp) -> None:
        """Scrolling up with the mouse is scrolling up."""
        self.follow(False)

    def _write(self, lines: Sequence[str]) -> None:
        if lines:
            self.write("".join(f"{line}\n" for line in lines), scroll_end=False)

    def _found(self) -> list[int]:
        wanted = self._mark.wanted.lower()
        return [y for y, line in enumerate(self.lines) if wanted in line.lower()] if wanted else []
