"""Become the service user and run a program, with a way to its files: ``as_service.py USER PROGRAM ARGUMENT...``."""

from __future__ import annotations

import os
import signal
import sys

from bgworker._database.binaries import find_binaries
from bgworker._database.enter import Entry, enter
from bgworker._database.identity import choose_identity, first_closed
from bgworker._database.namespace import Way


def main(user: str, program: str, *arguments: str) -> None:
    """Never return."""
    identity = choose_identity(user if os.geteuid() == 0 else None, lambda _message, _detail: None)
    trees = find_binaries().trees
    ways = [Way(tree, closed) for tree, closed in zip(trees, first_closed(identity, trees), strict=True) if closed]
    environment = {"PATH": os.defpath, "LANG": "C.UTF-8"}
    entry = Entry(program, arguments, environment, identity, ways, output_fd=2, death_signal=signal.SIGQUIT, parent=os.getppid())
    enter(entry, os.dup(2))


if __name__ == "__main__":
    main(*sys.argv[1:])
