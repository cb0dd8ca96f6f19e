"""``register``: a dynamic worker from the command line."""

from __future__ import annotations

from typing import Any

import click

from bgworker._spec import BGWORKER_SHMEM_ACCESS, STOP_WHEN, BackgroundWorker, BgWorkerFlags, BgWorkerStartTime, worker_from_dict
from bgworker.cli import _console
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import json_option, json_value, library_function, restart_time, seconds, verb
from bgworker.cli._set import assignment, complete_key, merged
from bgworker.cli.wait import not_running
from bgworker.tui.words import is_success


@verb(
    "register",
    """
bgworker register shop_queue:export --arg '{"order": 42}' --wait
bgworker register shop_queue:drain --restart-time 5 --wake-on orders \\
    --flag BGWORKER_BACKEND_DATABASE_CONNECTION
bgworker register shop_queue:report --set schedule='30 3 * * *' \\
    --set max_memory=200M --set environment.TZ=UTC
bgworker register --set 'command=["pg_dump", "-f", "/srv/shop.sql", "shop"]'
""",
)
@click.argument("library_function", metavar="[LIBRARY:FUNCTION]", type=library_function, required=False)
@click.option("--name", help="bgw_name; LIBRARY:FUNCTION, or the program, if not said.")
@click.option("--type", "type_", help="bgw_type; the name if not said.")
@click.option(
    "--flag",
    "flags",
    multiple=True,
    type=click.Choice(list(BgWorkerFlags.__members__)),
    help="bgw_flags; BGWORKER_SHMEM_ACCESS is always one of them.",
)
@click.option(
    "--restart-time", type=restart_time, metavar="S|never", help="Seconds to the restart after a failure; never if not said."
)
@click.option(
    "--start-time",
    metavar="STATE",
    type=click.Choice(list(BgWorkerStartTime.__members__)),
    default=BgWorkerStartTime.BgWorkerStart_RecoveryFinished.value,
    help="When to start: BgWorkerStart_PostmasterStart, BgWorkerStart_ConsistentState or BgWorkerStart_RecoveryFinished; "
    "the last if not said.",
)
@click.option("--arg", type=json_value, metavar="JSON", help="bgw_main_arg: what the function is called with.")
@click.option("--extra", default="", help="bgw_extra: a text for the worker, 128 bytes at most.")
@click.option("--wake-on", multiple=True, metavar="CHANNEL", help="A NOTIFY channel that sets the worker's latch.")
@click.option("--stop-timeout", type=seconds, metavar="S", help="Seconds from SIGTERM to SIGKILL.")
@click.option(
    "--stop-when",
    type=click.Choice(list(STOP_WHEN)),
    default=STOP_WHEN[0],
    help="phase_lost stops it while the database is not in the state of --start-time; never if not said.",
)
@click.option("--singleton", is_flag=True, help="One active instance among all hosts that share the database; others wait.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    type=assignment,
    metavar="KEY=VALUE",
    shell_complete=complete_key,
    help="Any key of [[worker]], its value in TOML; what is no TOML is a text. It wins over an option of that key.",
)
@click.option("--if-absent", is_flag=True, help="Leave a registered worker of this name as it is.")
@click.option("--wait", "is_waited", is_flag=True, help="Come back when it has started; exit code 1 if it does not start.")
@click.option("--timeout", type=seconds, metavar="S", help="With --wait: give up after this many seconds, with exit code 4.")
@json_option
def register(invocation: Invocation, as_json: bool, is_waited: bool, timeout: float | None, if_absent: bool, **keys: Any) -> int:
    """Register a dynamic background worker: FUNCTION of LIBRARY, a plugin or an importable module.

    A program instead of a function is named with --set command=[...]. Paths must be absolute.

    Prints its handle, SLOT.GENERATION. Without --wait, exit code 0 says that it has a slot, not
    that it runs. Exit code 5: no slot is free.
    """
    worker = worker_from_options(keys)
    with invocation.connect() as client:
        handle = client.register_dynamic_background_worker(worker, if_absent=if_absent)
        result: dict[str, Any] = {"handle": str(handle), "bgw_name": worker.bgw_name}
        is_good = True
        if is_waited:
            result |= client.wait(handle, "startup", timeout)
            if result["status"] != "STARTED":
                # One that has done its work before anybody looked did not fail.
                last_exit = handle.last_exit()
                is_good = last_exit is not None and is_success(last_exit.code, last_exit.reason)
                # A worker can be forgotten in the moment between its end and the reason for it.
                result["reason"] = result["reason"] or (last_exit.reason if last_exit is not None else "")
    if as_json:
        _console.say_json(result)
    elif not is_waited:
        _console.say(f"registered {worker.bgw_name} ({handle})")
    elif result["status"] == "STARTED":
        _console.say(f"started {worker.bgw_name} ({handle}, PID {result['pid']})")
    elif is_good:
        _console.say(f"finished {worker.bgw_name} ({handle}): {result['reason']}")
    else:
        raise not_running(worker.bgw_name, result["reason"])
    return 0 if is_good else 1


def worker_from_options(keys: dict[str, Any]) -> BackgroundWorker:
    """Return the registration that the options describe; the host checks it.

    Raises:
        RegistrationError: A value of --set has the wrong type.
    """
    given = merged(keys["assignments"])
    command = given.get("command")
    if keys["library_function"] is None and command is None:
        raise click.UsageError("missing argument LIBRARY:FUNCTION, or --set command=[...]")
    library, function = keys["library_function"] or ("", "")
    name = f"{library}:{function}" if library else command[0] if isinstance(command, list) and command else "command"
    flags = BGWORKER_SHMEM_ACCESS
    for flag in keys["flags"]:
        flags |= BgWorkerFlags[flag]
    worker = BackgroundWorker(
        bgw_name=keys["name"] if keys["name"] is not None else str(name),
        bgw_type=keys["type_"] or "",
        bgw_flags=flags,
        bgw_start_time=BgWorkerStartTime[keys["start_time"]],
        bgw_restart_time=keys["restart_time"],
        bgw_library_name=library,
        bgw_function_name=function,
        bgw_main_arg=keys["arg"],
        bgw_extra=keys["extra"],
        wake_on=tuple(keys["wake_on"]),
        stop_timeout=keys["stop_timeout"],
        stop_when=keys["stop_when"],
        singleton=keys["singleton"],
    )
    return worker_from_dict(worker.to_dict() | given) if given else worker
