"""Wants an argument that its hook is not given."""

from typing import Any

from bgworker.hookspecs import hookimpl


@hookimpl
def bgworker_init(registry: Any, database: Any) -> None:
    pass
