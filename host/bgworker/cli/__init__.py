"""The command line: one file per verb; parses, calls the client, prints.

``main`` is all that is public. It looks at the arguments before it imports click: click alone
costs more than ``status --json`` may take, and ``run`` is the host's own process, which should
carry nothing that it does not need (``_fast``). Every other command goes through ``_group``.

No verb may end in a traceback for what its user did: errors of ours are printed as ERROR,
DETAIL and HINT lines and turned into the exit codes of ``bgworker.errors``. Nothing imports
this room.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bgworker.cli import _console
from bgworker.errors import HostError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        arguments: The command line without the program's name; None means sys.argv's.
    """
    argv = list(sys.argv[1:] if arguments is None else arguments)
    # Names are anybody's text; a terminal in another encoding shows question marks for it, not a traceback.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        code = _dispatch(argv)
        _console.flush()
    except HostError as error:
        code = _console.complain(error)
    except KeyboardInterrupt:
        code = _console.INTERRUPTED
    except BrokenPipeError:
        _console.silence_stdout()
        code = _console.BROKEN_PIPE
    except OSError as error:
        # The machine's fault or the user's (a full disk, a path that may not be read), not a bug to trace.
        where = f' "{error.filename}"' if error.filename else ""
        code = _console.complain(HostError(f"could not go on{where}: {error.strerror or error}"))
    return code


def _dispatch(argv: list[str]) -> int:
    from bgworker.cli import _fast

    quick = _fast.parse(argv)
    if quick is not None:
        return quick()
    from bgworker.cli import _group

    return _group.run(argv)
