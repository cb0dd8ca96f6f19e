"""``why``: the reasons behind one worker's state, from the host and from its files."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import click

from bgworker.cli import _absent, _console, _explain
from bgworker.cli._explain import Explanation, Record
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import json_option, verb
from bgworker.cli.completion import worker_names
from bgworker.cli.status_json import fetch
from bgworker.errors import ConfigurationError, HostError, WorkerNotFound
from bgworker.tui.health import STAYS_DOWN, answers_to, instances_of, slots_of
from bgworker.tui.words import duration, instant

#: Lines of standard error that are printed; more when the traceback begins further up.
_LINES: Final = 20
#: Exits before the last one that are printed.
_EARLIER: Final = 5
#: Records of one worker that are looked at.
_MAX_RECORDS: Final = 1000
#: Instances that one sentence names.
_INSTANCES: Final = 10


@verb(
    "why",
    """
bgworker why order-drain           why it does not run, or how it ended
bgworker why 3.2 --json | jq .exits
""",
)
@click.argument("name", shell_complete=worker_names)
@json_option
def why(invocation: Invocation, name: str, as_json: bool) -> int:
    """Say why a worker does not run, how its last lives ended, and what to do.

    NAME is a worker, its slot or SLOT.GENERATION; a name that is over is looked for in the
    history. With the host down the files are asked, and the exit code is 3.
    """
    status, error = fetch(invocation)
    found = explain_name(invocation, name, status, time.time())
    if as_json:
        _console.say_json(found.to_dict())
    else:
        _print(found, time.time())
    if error is not None:
        _console.flush()
        return _console.complain(error)
    return 0


def explain_name(invocation: Invocation, name: str, status: Record, now: float) -> Explanation:
    """Find whom the name means, where the most is known of it.

    Raises:
        WorkerNotFound: Nobody bears it, or several do.
    """
    directory = invocation.location().data_directory
    if (slot := _one(name, slots_of(status))) is not None:
        records, trouble = _history(directory, str(slot.get("bgw_name")))
        return _noting(_explain.of_slot(slot, status, _exits(records), now), trouble)
    tables = _tables(invocation)
    if (status.get("host") or {}).get("state") != "down" and (over := _latest(name, status.get("finished"))) is not None:
        records, trouble = _history(directory, str(over.get("bgw_name")))
        # Reloads and hooks can change it, so the file says no more than what is likely.
        is_static = over.get("bgw_name") in tables or STAYS_DOWN in str(over.get("reason"))
        return _noting(_explain.of_finished(over, _exits(records), now, is_static=is_static), trouble)
    if (rejected := _latest(name, status.get("rejected"))) is not None:
        return _explain.of_rejected(rejected, status)
    if members := instances_of(status, name, _absent.configured_instances(invocation, name)):
        raise _has_instances(name, members, status)
    if tables.get(name) is False:
        return _noting(_explain.of_table(name, status, now, is_enabled=False), _place(invocation, name))
    past = _latest(name, status.get("finished"))
    records, trouble = _history(directory, str(past.get("bgw_name")) if past is not None else name)
    if records:
        return _noting(_explain.of_past(str(records[0].get("bgw_name")), records, status, now), trouble)
    if name in tables:
        return _explain.of_table(name, status, now, is_enabled=True)
    raise _nobody(name, status, tables, directory)


def _noting(found: Explanation, trouble: str) -> Explanation:
    if trouble:
        found.chain.append(trouble)
    return found


def _one(name: str, slots: Sequence[Record]) -> Record | None:
    """Return the one registered worker that the name means, as all commands understand names."""
    chosen = [slot for slot in slots if slot.get("bgw_name") == name] or [slot for slot in slots if answers_to(slot, name)]
    if len(chosen) > 1:
        handles = ", ".join(f"{slot.get('slot')}.{slot.get('generation')}" for slot in chosen)
        raise WorkerNotFound(
            f'background worker name "{_console.inert(name)}" is ambiguous',
            f"It is the name of {handles}.",
            "Name one by its slot.generation.",
        )
    return chosen[0] if chosen else None


def _latest(name: str, entries: Any) -> Record | None:
    """Return the last entry that the name means."""
    found = [entry for entry in entries or () if isinstance(entry, dict) and answers_to(entry, name)]
    by_name = [entry for entry in found if entry.get("bgw_name") == name]
    chosen = by_name or found
    return chosen[-1] if chosen else None


def _history(directory: str, name: str) -> tuple[list[Record], str]:
    """Return this worker's records, the latest first, and what kept us from reading them."""
    from bgworker._logs.history import read_latest

    found: list[Record] = []
    try:
        for piece in read_latest(directory):
            found += [r for r in reversed(piece) if r.get("bgw_name") == name and r.get("event") in ("started", "exited")]
            if len(_exits(found)) >= _explain.MAX_EXITS:
                break
    except HostError as error:  # a member of control_group may connect, but not read the files
        return found, f"Its history is not known: {error.message_primary}."
    return found[:_MAX_RECORDS], ""


def _exits(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.get("event") == "exited"]


def _tables(invocation: Invocation) -> dict[str, bool]:
    """Return the names in workers.toml, those that instances share too, and whether they are enabled; none if it is unreadable."""
    try:
        return {name: table.enabled for table in invocation.configuration().worker for name in (table.bgw_name, *table.names)}
    except (ConfigurationError, OSError):
        return {}


def _place(invocation: Invocation, name: str) -> str:
    """Return in which line of which file a worker stands, as a sentence."""
    configuration = invocation.configuration()
    number = _absent.table_of(configuration, name)
    return "" if number is None else f"It stands in {_absent.place(configuration, number, 'enabled')}."


def _nobody(name: str, status: Record, tables: dict[str, bool], directory: str) -> WorkerNotFound:
    """Return the error for a name that was never there."""
    from bgworker._logs import read_history

    known = [str(entry.get("bgw_name")) for key in ("slots", "finished", "rejected") for entry in status.get(key) or ()]
    try:
        known += [str(record["bgw_name"]) for record in read_history(directory) if "bgw_name" in record]
    except HostError:
        pass
    near = _console.nearest(name, sorted({*known, *tables}))
    broken = [str(plugin.get("name")) for plugin in status.get("broken_plugins") or ()]
    return WorkerNotFound(
        f'there is no background worker "{_console.inert(name)}", and never was one',
        f"Plugins that are broken register no workers: {', '.join(map(_console.inert, broken))}." if broken else "",
        f'The nearest is "{_console.inert(near)}".' if near else "List all of them with: bgworker status --all",
    )


def _has_instances(name: str, members: Sequence[str], status: Record) -> WorkerNotFound:
    """Return the error for a name that only instances bear: each has a story of its own."""
    states = {str(slot.get("bgw_name")): str(slot.get("state")).replace("_", " ") for slot in slots_of(status)}
    is_down = (status.get("host") or {}).get("state") == "down"
    told = [_console.inert(each) + ("" if is_down else f" ({states.get(each, 'not running')})") for each in members]
    more = f" and {len(told) - _INSTANCES} more" if len(told) > _INSTANCES else ""
    # Whoever asks does so because of one that does not run.
    first = next((each for each in members if states.get(each) != "started"), members[0])
    words = [shlex.quote(_console.inert(each)) for each in (first, name)]
    return WorkerNotFound(
        f'background worker "{_console.inert(name)}" has {len(members)} instance{"s" if len(members) != 1 else ""}',
        f"{'They are' if len(members) != 1 else 'It is'} {', '.join(told[:_INSTANCES])}{more}.",
        f"Ask for one of them: bgworker why {words[0]}. See all: bgworker status {words[1]}",
    )


def _print(found: Explanation, now: float) -> None:
    for line in story(found, now):
        _console.say(line)
    if found.advice:
        _console.say("\nWhat to do:")
        for advice in dict.fromkeys(found.advice):
            _console.say(f"  {advice}")


def story(found: Explanation, now: float) -> Iterator[str]:
    """Yield what is known, as lines; the advice is left to who prints it."""
    yield from found.chain
    if found.exits:
        latest = found.exits[0]
        if facts := _explain.used(latest):
            yield f"In that life: {facts}."
        yield from _last_lines(latest)
        yield from _earlier(found.exits[1 : 1 + _EARLIER], now)


def _last_lines(record: Record) -> Iterator[str]:
    """Yield what it wrote last, from the beginning of the traceback if there is one."""
    stderr = record.get("stderr")
    lines = [str(line) for line in stderr] if isinstance(stderr, list) else []
    traceback = str(record.get("traceback") or "").split("\n") if record.get("traceback") else []
    start = max(0, len(lines) - _LINES)
    if traceback:
        begins = [n for n in range(len(lines) - len(traceback) + 1) if lines[n : n + len(traceback)] == traceback]
        if begins:
            start = min(start, begins[-1])
        else:
            # Longer than the lines that are kept: it stands for them.
            yield from ("", "Its last traceback:")
            lines, start = traceback, 0
    if lines and not (traceback and lines is traceback):
        yield from ("", "Its last lines on standard error:")
    for line in lines[start:]:
        yield f"  {line}"


def _earlier(exits: Sequence[Record], now: float) -> Iterator[str]:
    if not exits:
        return
    yield from ("", "Before that:")
    for record in exits:
        at = instant(record.get("at"))
        ago = "-" if at is None else f"{duration(now - at)} ago"
        yield f"  {ago:>10}  {_explain.told(record)}"
