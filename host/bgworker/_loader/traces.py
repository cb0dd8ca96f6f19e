"""What an import has done to the process that did it: threads, a second process, functions replaced, signals.

The loader is cloned for every worker, so that what one plugin does to it is done to the workers
of all. A plugin that spoils it is imported only in processes of its own. The catalogue alone uses
this room.
"""

from __future__ import annotations

import builtins
import json
import os
import select
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from bgworker._process.prctl import task_count

#: Modules whose functions births and the runtime of every worker use. What an import adds to one harms nobody.
_WATCHED: Final[tuple[ModuleType, ...]] = (builtins, json, os, select, selectors, signal, socket, threading, time)
# Before any plugin can have put something else in its place.
_getpid = os.getpid
_exit = os._exit


class Spoiled(Exception):  # noqa: N818 - a finding about a plugin
    """A plugin's import has made this process unfit to be cloned.

    Args:
        plugin: Its name.
        how: Completes ``plugin "x" ...``.
    """

    def __init__(self, plugin: str, how: str) -> None:
        super().__init__(plugin)
        self.plugin = plugin
        self.how = how


class Traces:
    """The state of this process before any plugin's import, to be compared with what it is after each."""

    def __init__(self) -> None:
        self._pid = _getpid()
        self._functions: dict[tuple[ModuleType, str], Any] = {
            (module, name): value for module in _WATCHED for name, value in vars(module).items() if callable(value)
        }

    def end_second_process(self, name: str, tell: Callable[[str], None]) -> None:
        """End this process if it is a copy that the import has forked and that has come back here, as a second loader."""
        if _getpid() != self._pid:
            tell(name)
            _exit(0)

    def check(self, name: str) -> None:
        """Find threads and replaced functions.

        Raises:
            Spoiled: There are some.
        """
        if task_count() > 1:
            raise Spoiled(name, "starts threads when it is imported")
        for (module, attribute), value in self._functions.items():
            if vars(module).get(attribute) is not value:
                raise Spoiled(name, f"replaces {module.__name__}.{attribute} when it is imported")


def reset_signals() -> None:
    """Undo what an import did to this process's signals."""
    signal.alarm(0)
    signal.set_wakeup_fd(-1)
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
        if signal.getsignal(signum) not in (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler, None):
            signal.signal(signum, signal.SIG_IGN)
