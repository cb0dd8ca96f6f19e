"""What the verbs' declarations share: the global options, ``--json``, and the parsing of values.

Imports click, so never import it on the fast path.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import click

from bgworker._spec import BGW_NEVER_RESTART
from bgworker.cli._invocation import Invocation


class Count(click.IntRange):
    """A number of things; its errors say "is not a valid integer"."""

    name = "integer"


def _store(attribute: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    def callback(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
        # Not given here: what stood before the verb remains.
        if value is not None:
            setattr(context.ensure_object(Invocation), attribute, value)

    return callback


def location_options(*, has_short_config: bool = True) -> list[click.Option]:
    """Return -D and -c, accepted before and after every verb; their values go into the Invocation.

    Args:
        has_short_config: False where -c means something else: psql's.
    """
    return [
        click.Option(
            ["-D", "--data-directory"],
            metavar="DIR",
            expose_value=False,
            callback=_store("data_directory"),
            help="The host's data directory; else BGWORKER_DATA, STATE_DIRECTORY, workers.toml, or data beside it.",
        ),
        click.Option(
            ["-c", "--config"] if has_short_config else ["--config"],
            metavar="FILE",
            expose_value=False,
            callback=_store("config"),
            help="The configuration; else BGWORKER_CONFIG, else workers.toml here.",
        ),
    ]


def verb(
    name: str, examples: str = "", *, has_short_config: bool = True, context_settings: dict[str, Any] | None = None
) -> Callable[[Callable[..., int | None]], click.Command]:
    """Declare a verb: a click command with the global options and its examples at the end of its help.

    The function gets the Invocation first and returns the exit code, None meaning 0.
    """

    def decorate(function: Callable[..., int | None]) -> click.Command:
        # \b keeps click from refilling the lines that follow.
        epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in examples.strip().splitlines()) if examples else None

        @functools.wraps(function)
        def with_invocation(**values: Any) -> int | None:
            return function(click.get_current_context().ensure_object(Invocation), **values)

        command = click.command(name, epilog=epilog, context_settings=context_settings)(with_invocation)
        command.params += location_options(has_short_config=has_short_config)
        return command

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


# Plain functions and no click.ParamType subclasses: that class became generic in one version of click.


def seconds(text: str) -> float:
    """Return a number of seconds, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:  # NaN fails the comparison, too
        raise click.BadParameter(f'"{text}" is not a number of seconds')
    return value


def restart_time(text: str) -> float:
    """Return a number of seconds, or BGW_NEVER_RESTART for ``never``."""
    return BGW_NEVER_RESTART if text in ("never", "BGW_NEVER_RESTART") else seconds(text)


def json_value(text: str) -> Any:
    """Return any JSON value."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"it is not JSON: {error}; a string needs its own quotes, as in '\"text\"'") from None


def library_function(text: str) -> tuple[str, str]:
    """Return the library and the function of ``LIBRARY:FUNCTION``."""
    library, _, function = text.partition(":")
    if not library or not function:
        raise click.BadParameter(f'"{text}" is not of the form LIBRARY:FUNCTION, as in shop_queue:drain')
    return library, function
