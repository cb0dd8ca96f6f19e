"""Says that its settings are a dictionary."""

from bgworker.hookspecs import hookimpl


@hookimpl
def bgworker_settings() -> object:
    return {"naptime": 10}
