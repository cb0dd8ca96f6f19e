"""Ends the process from its hook, in the hope that this counts as success."""

import sys

from bgworker.hookspecs import hookimpl


@hookimpl
def bgworker_init() -> None:
    sys.exit(0)
