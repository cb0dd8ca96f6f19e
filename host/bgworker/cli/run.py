"""``run``: the host in the foreground, with or without the live view beside it."""

from __future__ import annotations

import sys

import click

from bgworker.cli import _console
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import verb
from bgworker.cli.foreground import LOG_TARGETS, run_foreground
from bgworker.errors import ConfigurationError


@verb(
    "run",
    """
bgworker run                     the workers of ./workers.toml, until Ctrl-C
bgworker run --tui               the same, with the view of top
bgworker run --dev               restart workers whose files change
bgworker run --log both          log lines on standard error, too
bgworker run -c /etc/shop/workers.toml -D /var/lib/shop
""",
)
@click.option(
    "--tui", is_flag=True, help="Show a view while the host runs: that of top if textual is installed; q or Ctrl-C stops both."
)
@click.option("--dev", is_flag=True, help="Watch the workers' files and workers.toml; restart workers whose code has changed.")
@click.option("--log", "log_to", type=click.Choice(LOG_TARGETS), help="Where log lines go, before [host] log; see logs.")
@click.option("--tied", "tied_to", type=int, hidden=True, help="Stop when the process with this pid dies.")
def run(invocation: Invocation, tui: bool, dev: bool, log_to: str | None, tied_to: int | None) -> int:
    """Run the host in the foreground, until it is told to stop.

    SIGTERM and SIGINT (Ctrl-C) stop it fast, a second one immediately; SIGHUP makes it read
    workers.toml again, SIGUSR2 lets it go on as the version that is installed now (see reexec). A stop
    that was asked for is exit code 0; 7 says that an essential worker failed.
    """
    if dev:
        if tui:
            raise ConfigurationError(
                "--dev and --tui cannot be combined",
                message_hint="Run with --dev, and in another terminal: bgworker status --watch",
            )
        from bgworker.cli._dev import run_with_watch

        return run_with_watch(invocation, log_to)
    if not tui:
        return run_foreground(invocation, log_to, tied_to)
    if not (sys.stdout.isatty() and sys.stdin.isatty()):
        # No terminal to draw on: the same host, with its log lines where the view would be.
        return run_foreground(invocation, log_to or "both", tied_to)
    # All errors of workers.toml are better read before the screen is taken.
    invocation.configuration_and_text()
    from bgworker.cli.beside import run_with_top, run_with_view
    from bgworker.cli.top import is_installed

    code = run_with_top(invocation, log_to) if is_installed() else run_with_view(invocation, log_to)
    if code == 0:
        # The other screen is gone with everything on it; an empty one would look like a crash.
        _console.note("LOG", "the host is shut down; read what it wrote with: bgworker logs")
    return code
