"""A terminal that does not echo what is typed into the picture, and a ``q`` that ends it.

The terminal's modes are put back however the view ends, an exception included.
"""

from __future__ import annotations

import os
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def quiet_keyboard(fd: int, pressed: Callable[[str], None]) -> Iterator[None]:
    """Switch echo and line editing off, and hand on each key, until the block ends.

    Args:
        fd: Standard input; left alone when it is no terminal.
        pressed: Called in a thread of its own.
    """
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    modes = termios.tcgetattr(fd)
    modes[3] &= ~(termios.ECHO | termios.ICANON)  # lflag; ISIG stays, so that Ctrl-C is still SIGINT
    termios.tcsetattr(fd, termios.TCSADRAIN, modes)
    # A daemon: it sits in read(2) when the view ends, and nobody waits for it.
    threading.Thread(target=_read_keys, args=(fd, pressed), daemon=True).start()
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _read_keys(fd: int, pressed: Callable[[str], None]) -> None:
    try:
        while key := os.read(fd, 1):
            pressed(key.decode("ascii", "replace"))
    except OSError:
        pass  # the terminal has gone; SIGHUP tells
