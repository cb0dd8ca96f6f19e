"""``systemd-unit``: a unit file for this host, printed and never installed."""

from __future__ import annotations

import graphlib
import math
import os
import sys
from typing import TYPE_CHECKING, Final

import click

from bgworker import _after
from bgworker._config.descriptors import needed
from bgworker.cli import _console
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import verb
from bgworker.errors import ConfigurationError

if TYPE_CHECKING:
    from bgworker._config.model import Configuration

#: Seconds that a PostgreSQL of the host's gets for its shutdown, and a margin for everything else.
_POSTGRES_SECONDS: Final = 60
_MARGIN_SECONDS: Final = 10

_UNIT: Final = """\
# Made by: bgworker systemd-unit
# Put it into /etc/systemd/system/{name}.service, then: systemctl daemon-reload && systemctl enable --now {name}

[Unit]
Description=bgworker host of {config}
After=network-online.target
Wants=network-online.target

[Service]
# SIGHUP reloads, and systemd hears when that is over. Needs systemd 253; before: Type=notify, ExecReload=/bin/kill -HUP $MAINPID
# A new version of bgworker: bgworker reexec. It is the same process to systemd, and no worker is stopped.
Type=notify-reload
NotifyAccess=main
User={user}
{directory}
ExecStart={run}
# The host stops its workers itself; what is left after TimeoutStopSec is killed.
KillMode=mixed
TimeoutStopSec={stop_seconds}
Restart=on-failure
# 2: the configuration has errors, and will have them the next time.
RestartPreventExitStatus=2
# The host's loop says that it turns; workers are watched by the host.
WatchdogSec=30
# As many as the host asks for: it does not start with fewer.
LimitNOFILE={descriptors}

[Install]
WantedBy=multi-user.target
"""


@verb("systemd-unit", "bgworker systemd-unit -c workers.toml > /etc/systemd/system/shop.service")
@click.option("--name", metavar="NAME", help="Of the service; else that of the directory in which workers.toml is.")
@click.option("--user", metavar="USER", help="Who runs it; else whoever calls this command.")
def systemd_unit(invocation: Invocation, name: str | None, user: str | None) -> None:
    """Print a unit file that runs the host of this workers.toml under systemd.

    The data directory is the one that all commands here use; with -D, or BGWORKER_DATA,
    that one.
    """
    configuration, _text = invocation.configuration_and_text()
    location = invocation.location()
    config = os.path.abspath(location.config_path or "workers.toml")
    name = name or os.path.basename(os.path.dirname(config)) or "bgworker"
    for text, what in ((name, "name"), (user or "", "user")):
        if any(not (character.isalnum() or character in "-_.@") for character in text):
            raise ConfigurationError(f'"{_console.inert(text)}" cannot be the {what} of a service')
    program = [sys.executable, "-P", "-m", "bgworker", "run", "-c", config, "-D", location.data_directory]
    _console.say(
        _UNIT.format(
            name=name,
            config=_escaped(config),
            user=user or _user_name(),
            directory=f"WorkingDirectory={_escaped(os.path.dirname(config))}",
            run=" ".join(_quoted(word) for word in program),
            stop_seconds=_stop_seconds(configuration),
            descriptors=needed(configuration.host),
        ).rstrip("\n")
    )


def _stop_seconds(configuration: Configuration) -> int:
    """Return how long a shutdown may take: the slowest workers that come after each other, then PostgreSQL, and some seconds."""
    default = configuration.host.shutdown_timeout
    own = {t.bgw_name: t.stop_timeout if isinstance(t.stop_timeout, int | float) else default for t in configuration.worker}
    after = {t.bgw_name: _after.names(t.after) if isinstance(t.after, list) else set() for t in configuration.worker}
    # A circle has been refused by check; whoever asks for a unit before that gets one for workers without an order.
    ordered = [] if _after.find_cycle(after) else graphlib.TopologicalSorter(after).static_order()
    until: dict[str, float] = {}
    for name in ordered:
        until[name] = own.get(name, default) + max((until[other] for other in after.get(name, ())), default=0.0)
    timeouts = [default, *own.values(), *until.values()]
    is_embedded = configuration.database is not None and configuration.database.url == "embedded"
    return math.ceil(max(timeouts)) + (_POSTGRES_SECONDS if is_embedded else 0) + _MARGIN_SECONDS


def _user_name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _escaped(text: str) -> str:
    """Return a text for a setting: % begins a specifier there (systemd.unit(5))."""
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    """Return one word of a command line as systemd reads it (systemd.service(5), systemd.syntax(7))."""
    word = _escaped(word).replace("$", "$$")
    if all(character.isalnum() or character in "/-_.=:@%$+," for character in word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
