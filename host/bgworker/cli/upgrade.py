"""``upgrade``: workers that run old code are restarted with the new one, a few first and then the rest.

The host loads the plugins anew; the order of the restarts, and the decision to go on, are
made here, so that an upgrade that is broken off leaves nothing behind: the workers it did not
come to run on.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from bgworker import _code
from bgworker.cli import _absent, _console, _fates
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import Count, json_option, seconds, verb
from bgworker.cli.status_json import not_found
from bgworker.errors import ConfigurationError, HostError, PluginError, WaitTimeout, WorkerNotFound
from bgworker.tui.health import answers_to, instances_of

if TYPE_CHECKING:
    from bgworker._control.client import Client, EventStream

Slot = dict[str, Any]


@verb(
    "upgrade",
    """
pip install -U shop-workers && bgworker upgrade
bgworker upgrade --canary 2 --settle 30   two; 30 s later four, ...
bgworker upgrade order-drain 3.2          these, be their code old or not
bgworker upgrade web                      all instances of web
""",
)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--canary", type=Count(min=1), default=1, metavar="N", help="How many are restarted first; 1 if not said.")
@click.option("--settle", type=seconds, default=3.0, metavar="S", help="How long each batch must stay up; 3 seconds if not said.")
@click.option(
    "--timeout", type=seconds, default=60.0, metavar="S", help="How long each batch may take to start; 60 seconds if not said."
)
@json_option
def upgrade(invocation: Invocation, names: tuple[str, ...], canary: int, settle: float, timeout: float, as_json: bool) -> int:
    """Restart the workers that run old code, batch by batch, and stop at the first that fails.

    Old is the code of a library whose files have changed, and a bgworker that is another than the
    host's, as after `bgworker reexec`; `bgworker status` says in whom. The plugins are loaded anew
    first; if one is broken, nothing happens (exit code 2). Each batch is twice as large as the one
    before, and the next begins when all of it has started and stayed up. workers.toml is not read:
    that is for `bgworker reload`. Exit code 1 when a worker failed, 4 when one did not start in
    time; the workers that are left then run on as they were.
    """
    with invocation.connect() as client, client.events() as stream:
        try:
            result = client.upgrade()
        except PluginError as error:
            _console.complain(error)
            return ConfigurationError.exit_code
        status = client.status()
        _code.note_old(status)
        names = tuple(each for name in names for each in _meant(status, name))
        if missing := [name for name in names if not any(answers_to(slot, name) for slot in status["slots"])]:
            return max(
                _console.complain(_absent.told_why(invocation, status, name, _unknown(client, name, status))) for name in missing
            )
        later = {change["bgw_name"] for change in result["changes"] if change["action"] == "later"}
        roll = _Roll(client, stream, settle, timeout, is_quiet=as_json)
        roll.take(status["slots"], names, later)
        failure = roll.run(canary)
        if roll.upgraded:
            _restart_launcher(client, [slot for slot in status["slots"] if slot not in roll.upgraded])
    return roll.report(failure, as_json=as_json)


def _meant(status: dict[str, Any], name: str) -> list[str]:
    """Return whom a name means: a worker, or all instances that are registered."""
    if any(answers_to(slot, name) for slot in status["slots"]):
        return [name]
    registered = {slot["bgw_name"] for slot in status["slots"]}
    return [each for each in instances_of(status, name) if each in registered] or [name]


def _unknown(client: Client, name: str, status: dict[str, Any]) -> WorkerNotFound:
    """Return the host's error for a name that no slot answers to: it knows also who is over."""
    try:
        client.find(name)
    except WorkerNotFound as error:
        return error
    return not_found(name, status)  # it has come in this moment


class _Roll:
    """One upgrade: who is to be restarted, who has been."""

    def __init__(self, client: Client, stream: EventStream, settle: float, timeout: float, *, is_quiet: bool) -> None:
        self._client, self._stream = client, stream
        self._settle, self._timeout, self._is_quiet = settle, timeout, is_quiet
        self.left: list[Slot] = []
        self.upgraded: list[Slot] = []
        self.failed: list[Slot] = []
        #: Never restarted, or not before the next time of its schedule: a job runs to its end with the code it has.
        self.spared: list[Slot] = []

    def take(self, slots: list[Slot], names: tuple[str, ...], later: set[str]) -> None:
        """Choose: those named, else those with old code and those whose registration the new code changes."""
        for slot in slots:
            is_meant = any(answers_to(slot, name) for name in names) if names else _code.is_old(slot) or slot["bgw_name"] in later
            # Without a process it gets the new code anyway, when it starts.
            if not is_meant or slot["pid"] is None or (slot["origin"] == "builtin" and names):
                continue
            is_job = bool(slot["config"].get("schedule")) or (slot["bgw_restart_time"] is None and slot["origin"] == "dynamic")
            (self.spared if is_job else self.left).append(slot)
        # The launcher comes last: what it runs are the hooks of plugins that have proved themselves in workers.
        self.left.sort(key=lambda slot: slot["origin"] == "builtin")

    def run(self, size: int) -> HostError | None:
        """Restart batch after batch; return why it was given up."""
        while self.left:
            batch, self.left = self.left[:size], self.left[size:]
            try:
                self._restart(batch)
            except WaitTimeout as error:
                self.failed = batch
                return error
            if self.failed:
                self.upgraded += [slot for slot in batch if slot not in self.failed]
                return HostError(f'background worker "{self.failed[0]["bgw_name"]}" failed with the new code')
            self.upgraded += batch
            size *= 2
        return None

    def _restart(self, batch: list[Slot]) -> None:
        by_key = {f"{slot['slot']}.{slot['generation']}": slot for slot in batch}
        was = _fates.before({"slots": batch})
        for key in by_key:
            self._client.restart(key)
        fates = _fates.follow(
            self._client,
            self._stream,
            was,
            time.monotonic() + self._timeout,
            lambda key, fate: self._say(f"{by_key[key]['bgw_name']} ({key}): {fate.word}, {fate.text}"),
        )
        fallen = {key: fate for key, fate in fates.items() if fate.word == "failed"}
        if not fallen:
            started = {key: fate for key, fate in fates.items() if fate.word == "started"}
            fallen = _fates.settle(self._client, self._stream, started, self._settle)
            for key, fate in fallen.items():
                self._say(f"{by_key[key]['bgw_name']} ({key}): {fate.word}, {fate.text}")
        self.failed = [by_key[key] for key in fallen]

    def _say(self, line: str) -> None:
        if not self._is_quiet:
            _console.say(line)
            _console.flush()

    def report(self, error: HostError | None, *, as_json: bool) -> int:
        """Say what came of it; return the exit code."""
        if as_json:
            lists = {"upgraded": self.upgraded, "failed": self.failed, "left": self.left, "spared": self.spared}
            _console.say_json({key: [_view(slot) for slot in slots] for key, slots in lists.items()})
        else:
            count = len(self.upgraded)
            _console.say(f"{count} worker{'s' if count != 1 else ''} upgraded" if count or error else "no worker runs old code")
            if self.spared:
                _console.say(f"left alone, because they are jobs: {_names(self.spared)}")
        _console.flush()
        if error is None:
            return 0
        left = f"Left as they were: {_names(self.left)}." if self.left else "No other worker was left."
        return _console.complain(
            type(error)(
                error.message_primary,
                f"{error.message_detail} {left}".strip(),
                "A worker that is left takes the new code at its next start. Install what works, then run: bgworker upgrade",
            )
        )


def _restart_launcher(client: Client, slots: list[Slot]) -> None:
    """Have the plugins' hooks run with the new code, too."""
    for slot in slots:
        if slot["origin"] == "builtin":
            client.restart(f"{slot['slot']}.{slot['generation']}")


def _view(slot: Slot) -> dict[str, Any]:
    return {"bgw_name": slot["bgw_name"], "handle": f"{slot['slot']}.{slot['generation']}"}


def _names(slots: list[Slot]) -> str:
    return ", ".join(f'"{slot["bgw_name"]}"' for slot in slots)
