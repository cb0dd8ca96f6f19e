"""What becomes of ``logging`` in a worker whose author has configured nothing: records that keep level and logger.

Python prints such records without either (``logging.lastResort``). Here the handler of last
resort writes a line that the collector reads as a record. It stays the last resort: a worker
that calls ``logging.basicConfig()`` or has handlers of its own has everything as it says.

Must work when standard error is replaced or redirected: then the record is text.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from bgworker._log_record import LogRecord, encode, text_of
from bgworker._worker.log import write

if TYPE_CHECKING:
    import logging


def install() -> None:
    """Put the handler in place, if the worker's code has imported ``logging``; standard error is the collector's pipe now."""
    module: Any = sys.modules.get("logging")
    if module is not None:
        # The level of the root logger decides, which is WARNING unless the author says otherwise.
        module.lastResort = handler_class()(_identity())


@cache
def handler_class() -> Any:
    """Return the handler's class, made when somebody has imported ``logging``: nobody should because of it.

    The loader makes it for its clones, once: it is a tenth of what a worker does before its function.
    """
    module: Any = sys.modules["logging"]
    formatter = module.Formatter()

    class LastResort(module.Handler):  # type: ignore[misc]
        def __init__(self, pipe: tuple[int, int] | None) -> None:
            super().__init__()
            self._pipe = pipe

        def emit(self, record: logging.LogRecord) -> None:
            try:
                emitted = _convert(record, formatter)
                if self._pipe is not None and sys.stderr is sys.__stderr__ and _identity() == self._pipe:
                    write(encode(emitted).decode())
                else:
                    write(f"{text_of(emitted)}\n")
            # As all handlers of logging do: what an author's argument or __str__ raises is not the worker's end.
            except Exception:
                self.handleError(record)

    return LastResort


def _convert(record: logging.LogRecord, formatter: logging.Formatter) -> LogRecord:
    parts = []
    if record.exc_info and record.exc_info[0] is not None:
        parts.append(record.exc_text or formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return LogRecord(record.levelname, record.name, record.getMessage(), "\n".join(parts))


def _identity() -> tuple[int, int] | None:
    """Return which file descriptor 2 is; an author may redirect it."""
    try:
        status = os.fstat(2)
    except OSError:
        return None
    return status.st_dev, status.st_ino
