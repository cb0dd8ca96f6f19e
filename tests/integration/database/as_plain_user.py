"""Become an ordinary user, with a way to this interpreter and this repository: ``as_plain_user.py USER COMMAND...``."""

from __future__ import annotations

import os
import sys

from bgworker._database.identity import become, choose_identity, first_closed
from bgworker._database.namespace import Way, open_ways


def main(user: str, *command: str) -> None:
    """Never return."""
    identity = choose_identity(user, lambda _message, _detail: None)
    repository = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
    targets = sorted({os.path.realpath(path) for path in (sys.base_prefix, sys.prefix, repository)})
    closed = first_closed(identity, targets)
    open_ways([Way(target, place) for target, place in zip(targets, closed, strict=True) if place])
    become(identity)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
