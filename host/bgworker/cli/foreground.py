"""Starts the host in this very process: what ``run`` does, and what ``run --tui`` and ``demo`` run as a child.

Imports no click: what is imported here stays in the host for its whole life.
"""

from __future__ import annotations

import os
import signal
from typing import Final

from bgworker.cli._invocation import Invocation

#: What ``--log`` takes; the same as ``[host] log``.
LOG_TARGETS: Final = ("files", "stderr", "both")


def run_foreground(invocation: Invocation, log_to: str | None = None, tied_to: int | None = None) -> int:
    """Run the host until it is told to stop and return its exit code.

    Args:
        invocation: Names workers.toml and the data directory.
        log_to: Where log lines go, one of LOG_TARGETS; None leaves it to workers.toml.
        tied_to: Pid of the process whose death stops this host; None leaves it on its own.
    """
    if tied_to is not None and not _tie(tied_to):
        return 1
    location = invocation.location()
    configuration, text = invocation.configuration_and_text()
    if log_to is not None:
        from msgspec.structs import replace

        configuration = replace(configuration, host=replace(configuration.host, log=log_to))
    from bgworker._host.main import run_host

    return run_host(location, configuration, text)


def _tie(parent: int) -> bool:
    """Ask the kernel for SIGTERM, a fast stop, when the parent dies; False when it has died already."""
    from bgworker._process.prctl import set_pdeathsig

    set_pdeathsig(signal.SIGTERM)
    # A parent that died before the call above sends nothing.
    return os.getppid() == parent
