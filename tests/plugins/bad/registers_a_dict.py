"""Registers something that is no BackgroundWorker."""

from typing import Any

from bgworker.hookspecs import hookimpl


@hookimpl
def bgworker_init(registry: Any) -> None:
    registry.register_background_worker({"bgw_name": "x"})
