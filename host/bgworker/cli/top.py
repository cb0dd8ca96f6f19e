"""``top``: the full-screen view of a running host."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from bgworker.cli._invocation import Invocation
from bgworker.cli._options import verb
from bgworker.errors import ConfigurationError, HostError


@verb("top", "bgworker top                    ? says what the keys do")
def top(invocation: Invocation) -> int:
    """Look at the workers, their logs and their history, and start, stop or signal them.

    Full screen, until q. Needs textual: pip install "bgworker[top]". Without it, or where keys are
    too much, `bgworker status --watch` shows the same table. Exit code 3 if the host has gone.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigurationError(
            "bgworker top needs a terminal", message_hint="For a pipe there is: bgworker status --watch, or bgworker status --json"
        )
    if not is_installed():
        raise HostError("bgworker top needs textual", message_hint='Install it with: pip install "bgworker[top]"')
    from bgworker.cli.status import last_words, make_console
    from bgworker.top.app import Top
    from bgworker.top.doors import Doors
    from bgworker.top.feed import Pictures
    from bgworker.tui.render import render

    pictures = Pictures(invocation.connect, partial(last_words, invocation))
    # A host that does not run is an error at once; one that dies later is waited for.
    pictures.open()
    application = Top(Doors(pictures, invocation.connect, invocation.location().data_directory, partial(explain, invocation)))
    # The terminal is given back as after q.
    signal.signal(signal.SIGTERM, lambda *_: application.leave_soon())
    code = application.run()
    if code == 3 and application.picture is not None:
        # The screen is given back; what it showed of a dead host is still wanted.
        console = make_console()
        console.print(render(application.picture.view, console.width, gone=application.gone))
    # None: textual ended it, after a bug of ours that it has printed.
    return 1 if code is None else code


def is_installed() -> bool:
    """Whether there is a textual to draw with."""
    try:
        import textual  # noqa: F401
    except ImportError:
        return False
    return True


def explain(invocation: Invocation, name: str, status: dict[str, Any]) -> Sequence[str]:
    """Return what ``bgworker why`` says of a worker, as lines."""
    from bgworker.cli.why import explain_name, story

    now = time.time()
    return list(story(explain_name(invocation, name, status, now), now))
