"""Registers one worker, then fails, and keeps the registry for later."""

from typing import Any

from bgworker._spec import BackgroundWorker
from bgworker.hookspecs import hookimpl

kept: list[Any] = []


@hookimpl
def bgworker_init(registry: Any) -> None:
    kept.append(registry)
    registry.register_background_worker(BackgroundWorker(bgw_name="half", bgw_library_name="os", bgw_function_name="getcwd"))
    raise ValueError("there is no other half")
