"""``plan`` and ``reload``: what a change of workers.toml does to each worker, before and after."""

from __future__ import annotations

import time
from typing import Any

import click

from bgworker import _code
from bgworker.cli import _console, _fates
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import json_option, seconds, verb
from bgworker.errors import ConfigurationError, PluginError

#: Exit code of a plan that would change something.
HAS_CHANGES = 6


@verb(
    "plan",
    """
bgworker plan                      what would a reload do?
bgworker plan || bgworker reload   reload, if there is something to do
""",
)
@json_option
def plan(invocation: Invocation, as_json: bool) -> int:
    """Print what `bgworker reload` would do to each worker, and why. Changes nothing.

    nothing: it stays as it is; live: it runs on, and the host acts by the new values; later: the
    next run of its schedule has them; restart; start; stop; rejected: it cannot be registered.
    Values that may be secret are never shown. Workers that run old code are named. Exit code 0 when a reload would
    change nothing, 6 when it would, 2 when the file or a plugin is broken, 3 when no host runs:
    what a start would run is printed by `bgworker check`.
    """
    try:
        with invocation.connect() as client:
            result = client.plan(invocation.named_config)
            old = _code.note_old(client.status())
    except PluginError as error:
        _console.complain(error)
        return ConfigurationError.exit_code
    if as_json:
        _console.say_json({"has_changes": has_changes(result), **result, "old_code": [_old_view(slot) for slot in old]})
    else:
        _print(result)
        print_old_code(old)
        _console.flush()
        for warning in result["warnings"]:
            _console.note("WARNING", warning)
    return HAS_CHANGES if has_changes(result) else 0


def has_changes(result: dict[str, Any]) -> bool:
    """Whether a reload does anything but load the plugins anew."""
    acts = any(change["action"] != "nothing" for change in result["changes"])
    return bool(acts or result["settings"] or any(result["plugins"].values()))


def _print(result: dict[str, Any]) -> None:
    changes = result["changes"]
    if changes:
        _console.table([(change["action"], change["bgw_name"], change["reason"]) for change in changes])
    for word, plugins in result["plugins"].items():
        if plugins:
            _console.say(f"plugins {word}: {', '.join(plugins)}")
    if result["settings"]:
        _console.say(f"settings of {', '.join(result['settings'])} change; every worker is told by SIGHUP")
    unchanged = len(result["unchanged"])
    if unchanged or not changes:
        others = " other" if changes else ""
        _console.say(
            f"{unchanged}{others} worker{'s run' if unchanged != 1 else ' runs'} on as {'they are' if unchanged != 1 else 'it is'}"
        )


def print_old_code(old: list[dict[str, Any]]) -> None:
    """Say which workers run code that is not what is installed now."""
    for slot in old:
        _console.say(f"old code  {slot['bgw_name']} runs {_code.in_words(slot['config']['code'])}")
    if old:
        _console.say("workers with old code are restarted, one batch after another, by: bgworker upgrade")


def _old_view(slot: dict[str, Any]) -> dict[str, Any]:
    code = slot["config"]["code"]
    return {
        "bgw_name": slot["bgw_name"],
        "handle": f"{slot['slot']}.{slot['generation']}",
        **{key: code.get(key, "") for key in ("distribution", "version", "installed", "bgworker", "host_bgworker")},
    }


@verb("reload", "bgworker reload\nbgworker plan          what would it do?")
@click.option("--no-wait", is_flag=True, help="Come back as soon as the host has accepted it.")
@click.option("--timeout", type=seconds, metavar="S", help="Give up waiting after this many seconds, with exit code 4.")
@json_option
def reload(invocation: Invocation, no_wait: bool, timeout: float | None, as_json: bool) -> int:
    """Make the host read workers.toml again, act on what has changed, and wait for the workers it concerns.

    Does what `bgworker plan` prints. Workers that did not change run on and are told to look at
    their settings. If the file or a plugin is broken, nothing changes (exit code 2; 1 for a
    plugin). Exit code 1 too if a worker that was to start did not, or could not be registered.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    with invocation.connect() as client, client.events() as stream:
        was = {slot["bgw_name"]: slot for slot in client.status()["slots"] if slot["origin"] == "static"}
        result = client.reload(invocation.named_config)
        changes = result["changes"]
        if not as_json:
            _print_quiet(changes)
        fates: dict[str, _fates.Fate] = {}
        if not no_wait:
            fates = _follow(client, stream, changes, was, deadline, as_json=as_json)
    failed = [name for name, fate in fates.items() if fate.word == "failed"]
    failed += [change["bgw_name"] for change in changes if change["action"] == "rejected"]
    if as_json:
        for change in changes:
            if (fate := fates.get(change["bgw_name"])) is not None:
                change["outcome"] = {"state": fate.word, "reason": fate.text, "pid": fate.pid}
        _console.say_json(result)
        return 1 if failed else 0
    if not any(change["action"] != "nothing" for change in changes):
        _console.say("reloaded; no registration has changed")
    if settings := result["settings"]:
        count = result["signalled"]
        _console.say(
            f"settings of {', '.join(settings)} changed; {count} worker{'s were' if count != 1 else ' was'} told by SIGHUP"
        )
    _console.flush()
    for warning in result["warnings"]:
        _console.note("WARNING", warning)
    return 1 if failed else 0


#: Actions that take time.
_FOLLOWED = ("start", "restart", "stop")


def _print_quiet(changes: list[dict[str, Any]]) -> None:
    """Print the changes that are done as soon as they are made."""
    for change in changes:
        if change["action"] not in _FOLLOWED:
            _console.say(_line(change))
    _console.flush()


def _line(change: dict[str, Any]) -> str:
    return f"{change['action']} {change['bgw_name']} ({change['reason']})"


def _follow(client: Any, stream: Any, changes: Any, was: Any, deadline: float | None, *, as_json: bool) -> dict[str, _fates.Fate]:
    """Wait for what was started, restarted and stopped; print each as it ends."""
    by_key: dict[str, dict[str, Any]] = {}
    awaited: dict[str, _fates.Before] = {}
    for change in changes:
        if change["action"] in _FOLLOWED:
            slot = was.get(change["bgw_name"])
            # A worker that is registered anew has another handle, which its name leads to.
            key = change["bgw_name"] if slot is None else f"{slot['slot']}.{slot['generation']}"
            by_key[key] = change
            awaited[key] = _fates.NEW if slot is None else _fates.Before(slot["pid"], slot["restarts"])

    def tell(key: str, fate: _fates.Fate) -> None:
        if not as_json:
            is_stop = by_key[key]["action"] == "stop" and fate.word == "gone"
            _console.say(f"{_line(by_key[key])}: {'stopped' if is_stop else f'{fate.word}, {fate.text}'}")
            _console.flush()

    return {by_key[key]["bgw_name"]: fate for key, fate in _fates.follow(client, stream, awaited, deadline, tell).items()}
