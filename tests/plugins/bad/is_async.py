"""Has a coroutine as a hook; nobody would ever await it."""

from bgworker.hookspecs import hookimpl


@hookimpl
async def bgworker_init() -> None:
    pass
