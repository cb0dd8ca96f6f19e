"""Never returns from its hook."""

import threading

from bgworker.hookspecs import hookimpl


@hookimpl
def bgworker_init() -> None:
    threading.Event().wait()
