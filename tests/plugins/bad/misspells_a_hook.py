"""Implements a hook that does not exist."""

from bgworker.hookspecs import hookimpl


@hookimpl
def bgworker_inti() -> None:
    pass
