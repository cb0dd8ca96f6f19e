"""``start``, ``restart``, ``terminate`` and ``signal``: one act on each of several workers.

Every worker named is acted on, whatever becomes of the others; the exit code is the worst one. The name
that instances share means each of them, as if each had been named.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from bgworker.cli import _absent, _console
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import json_option, seconds, verb
from bgworker.cli.completion import names_and_groups
from bgworker.errors import HostError, HostNotRunning, WorkerNotFound

if TYPE_CHECKING:
    from bgworker._control.client import Client

#: Does the thing to one worker; returns its handle's text and what to say, or raises.
Act = Callable[["Client", str], tuple[str, str]]

names_argument = click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=names_and_groups)


@verb(
    "start",
    """
bgworker start order-drain
bgworker start web                all instances of web
bgworker start 3 7
""",
)
@names_argument
@json_option
def start(invocation: Invocation, names: tuple[str, ...], as_json: bool) -> int:
    """Start a worker now that waits for its restart, or a static one that is over.

    A worker that was terminated stays down until it is started here, or the host is.
    """

    def act(client: Client, name: str) -> tuple[str, str]:
        try:
            handle = client.find(name)
        except WorkerNotFound:  # over, perhaps: start() tells
            pass
        else:
            if handle.get_pid().pid is not None:
                return str(handle), "already running:"
        return str(client.start(name)), "starting"

    return _each(invocation, names, as_json, act)


@verb(
    "restart",
    """
bgworker restart order-drain
bgworker restart web              all instances of web
""",
)
@names_argument
@json_option
def restart(invocation: Invocation, names: tuple[str, ...], as_json: bool) -> int:
    """Stop a worker and start it again at once, whatever its restart time and exit code."""
    return _each(invocation, names, as_json, lambda client, name: (str(client.restart(name)), "restarting"))


@verb(
    "terminate",
    """
bgworker terminate order-drain --wait
bgworker terminate web            all instances of web
bgworker terminate 3.2
""",
)
@names_argument
@click.option("--wait", "is_waited", is_flag=True, help="Come back when the worker has gone.")
@click.option("--timeout", type=seconds, metavar="S", help="With --wait: give up after this many seconds, with exit code 4.")
@json_option
def terminate(invocation: Invocation, names: tuple[str, ...], is_waited: bool, timeout: float | None, as_json: bool) -> int:
    """Stop a worker and keep it down: SIGTERM, and SIGKILL after its stop_timeout.

    It is not started again until `bgworker start` or a start of the host.
    """

    def act(client: Client, name: str) -> tuple[str, str]:
        handle = str(client.terminate(name, by_operator=True))
        if not is_waited:
            return handle, "terminating"
        client.wait(handle, "shutdown", timeout)
        return handle, "terminated"

    return _each(invocation, names, as_json, act)


@verb(
    "signal",
    """
bgworker signal order-drain                re-read its settings: SIGHUP
bgworker signal web                        all instances of web
bgworker signal -s USR1 order-drain 3.2
""",
)
@names_argument
@click.option("-s", "--signal", "signal_name", default="SIGHUP", metavar="SIGNAL", help="Which one; SIGHUP if not said.")
@json_option
def signal(invocation: Invocation, names: tuple[str, ...], signal_name: str, as_json: bool) -> int:
    """Send a signal to a worker's process.

    To stop a worker, use terminate: after a SIGTERM from here its restart time decides.
    """

    def act(client: Client, name: str) -> tuple[str, str]:
        try:
            return str(client.signal(name, signal_name)), f"sent {signal_name.upper()} to"
        except WorkerNotFound as error:
            if name.upper().startswith("SIG"):
                raise WorkerNotFound(
                    str(error), error.message_detail, f"Name the signal with -s: bgworker signal -s {name}"
                ) from None
            raise

    return _each(invocation, names, as_json, act)


def _each(invocation: Invocation, names: Sequence[str], as_json: bool, act: Act) -> int:
    """Do the act to each worker, or each of its instances, and print what came of it."""
    done: list[dict[str, Any]] = []
    with invocation.connect() as client:
        status = functools.cache(lambda: _absent.status_of(client))

        def do(name: str, *, is_given: bool = True) -> int:
            try:
                handle, words = act(client, name)
            except HostNotRunning:
                raise
            except WorkerNotFound as error:
                if is_given and (members := _absent.instances(invocation, status(), name)):
                    return max(do(member, is_given=False) for member in members)
                return _console.complain(_absent.told_why(invocation, status(), name, error, is_group=True))
            except HostError as error:
                return _console.complain(error)
            done.append({"name": name, "handle": handle})
            if not as_json:
                _console.say(f"{words} {name}" if name == handle else f"{words} {name} ({handle})")
            return 0

        code = max(do(name) for name in names)
    if as_json:
        _console.say_json(done)
    return code
