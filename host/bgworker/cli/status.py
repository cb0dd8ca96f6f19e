"""``status``: the table, once or live, and the verdict of ``--check``."""

from __future__ import annotations

import queue
import signal
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from bgworker import _code
from bgworker.cli import _console
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import json_option, verb
from bgworker.cli.completion import names_and_groups
from bgworker.cli.status_json import fetch, not_found, print_status
from bgworker.errors import ConfigurationError, HostError
from bgworker.tui import health, model, plain
from bgworker.tui.words import duration, instant

if TYPE_CHECKING:
    from rich.console import Console

    from bgworker.tui.model import View

#: Workers with old code that one hint names.
_MAX_OLD: Final = 5


@verb(
    "status",
    """
bgworker status                       the table; many alike are one row
bgworker status --watch               live, until q or Ctrl-C
bgworker status order-drain 3.2       these workers alone
bgworker status web                   all instances of web
bgworker status --check || page-me    exit code 1 when a human is needed
bgworker status --json | jq .slots
""",
)
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=names_and_groups)
@json_option
@click.option("--watch", is_flag=True, help="Keep showing it, as it changes.")
@click.option("--failed", is_flag=True, help="Only what needs a human.")
@click.option("--all", "show_all", is_flag=True, help="One row for each worker, and those that are over, too.")
@click.option("--check", "is_check", is_flag=True, help="Print only what needs a human; exit code 1 if anything does.")
def status(
    invocation: Invocation, names: tuple[str, ...], as_json: bool, watch: bool, failed: bool, show_all: bool, is_check: bool
) -> int:
    """Show the workers and how they are: trouble first, then by slot.

    With the host down, shows what its files tell, and ends with exit code 3. What needs a human:
    workers that failed and are not well again, or are over for less than an hour; what could not
    be registered; broken plugins; a database that is lost.
    """
    if watch:
        if as_json or is_check:
            raise ConfigurationError(f"--watch cannot be combined with {'--json' if as_json else '--check'}")
        return _watch(invocation, names, failed, show_all)
    if as_json:
        return print_status(invocation, names, only_trouble=failed, is_check=is_check)
    facts, error = fetch(invocation)
    now = time.time()
    shown, missing = health.select(facts, names, failed, now)
    if error is not None:
        _print_offline(shown, now)
    elif is_check:
        return _print_check(health.troubles(shown, now))
    else:
        is_terminal = sys.stdout.isatty()
        fold = is_terminal and not (show_all or names)
        view = model.build(facts, now, shown=shown, fold=fold, show_finished=show_all or bool(names))
        _print(view, is_terminal)
    _console.flush()
    if error is not None:
        return _console.complain(error)
    if old := [slot for slot in shown["slots"] if _code.is_old(slot)]:
        named = ", ".join(f"{slot['bgw_name']} ({_code.in_words(slot['config']['code'])})" for slot in old[:_MAX_OLD])
        more = f" and {len(old) - _MAX_OLD} more" if len(old) > _MAX_OLD else ""
        _console.note("HINT", f"old code runs in {named}{more}; restart them with: bgworker upgrade")
    return max((_console.complain(not_found(name, facts)) for name in missing), default=0)


def _print(view: View, is_terminal: bool) -> None:
    if not is_terminal:
        _console.say("\n".join(plain.lines(view)))
        return
    from bgworker.tui.figures import Meter
    from bgworker.tui.render import render

    console = make_console()
    figures = Meter().measure((pid for row in view.rows for pid in row.pids), time.time())
    console.print(render(view, console.width, figures=figures))


def make_console() -> Console:
    """Return the console that all views are drawn on: nothing in their text is markup, an emoji code or to be coloured."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def _print_check(troubles: list[str]) -> int:
    for sentence in troubles:
        _console.say(sentence)
    if not troubles:
        _console.say("all is well")
    return 1 if troubles else 0


def _print_offline(facts: dict[str, Any], now: float) -> None:
    """Print what the files of a host that is down tell."""
    host = facts["host"]
    down_at = instant(host["since"])
    since = "" if down_at is None else f" since {host['since']} ({duration(now - down_at)} ago)"
    _console.say(f"bgworker  down{since}  {host['data_directory']}")
    if host["end"]:
        _console.say(f"it {host['end']}")
    if host["last_words"]:
        _console.say(f"last line of host.log: {host['last_words']}")
    if not facts["finished"]:
        return
    rows = [("SLOT", "NAME", "ENDED", "HOW")]
    for life in facts["finished"]:
        # One that died with its host has no exit of its own.
        at = instant((life["last_exit"] or {}).get("at"))
        ended = "-" if at is None else f"{duration(now - at)} ago"
        rows.append((f"{life['slot']}.{life['generation']}", life["bgw_name"], ended, life["reason"] or "-"))
    _console.table(rows)


def _watch(invocation: Invocation, names: tuple[str, ...], only_trouble: bool, show_all: bool) -> int:
    from bgworker.tui.feed import Inbox, Message
    from bgworker.tui.keyboard import quiet_keyboard
    from bgworker.tui.live import LiveView, full_screen

    console = make_console()
    inbox: Inbox = queue.SimpleQueue()
    view = LiveView(
        console,
        invocation.connect,
        partial(
            build_view, names=names, only_trouble=only_trouble, fold=console.is_terminal and not show_all, show_finished=show_all
        ),
        inbox,
        partial(last_words, invocation),
    )
    # A host that does not run is an error at once; one that dies later is waited for.
    view.open()
    if not console.is_terminal:
        return view.run()

    def leave(*_: object) -> None:
        inbox.put(Message("leave", 0 if view.is_connected else 3))

    previous = {signum: signal.signal(signum, leave) for signum in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGWINCH, lambda *_: inbox.put(Message("draw")))
    try:
        with quiet_keyboard(sys.stdin.fileno(), lambda key: leave() if key in "qQ" else None):
            code = view.run(full_screen(console))
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
    if code != 0 and (picture := view.last_picture()) is not None:
        # The screen is given back; what it showed of a dead host is still wanted.
        console.print(picture)
    return code


def build_view(
    facts: dict[str, Any], now: float, *, names: tuple[str, ...], only_trouble: bool, fold: bool, show_finished: bool
) -> View:
    """Return the view of what was asked for."""
    shown, _missing = health.select(facts, names, only_trouble, now)
    return model.build(facts, now, shown=shown, fold=fold and not names, show_finished=show_finished or bool(names))


def last_words(invocation: Invocation) -> str:
    """Return how a host that has just gone ended, as far as its log tells."""
    from bgworker._logs import last_end

    try:
        end = last_end(invocation.location().data_directory)
    except (HostError, OSError):
        return ""
    return f"it {end}" if end else ""
