"""Has a hook's function without @hookimpl; it would silently never be called."""


def bgworker_init() -> None:
    pass
