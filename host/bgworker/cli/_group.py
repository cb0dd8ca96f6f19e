"""The click group: every verb with its one-line help, imported when it is called and not before.

Plugins add verbs through the entry-point group ``bgworker.commands``. Theirs are looked up only
when a word is none of ours, so a plugin can neither shadow nor break a verb of ours. click's
own usage errors are put into the words of all other errors.
"""

from __future__ import annotations

import copy
import os
import traceback
from collections.abc import Iterable
from importlib import import_module
from typing import Any, Final, NamedTuple

import click
from click.shell_completion import CompletionItem, shell_complete

from bgworker import _version
from bgworker.cli import _console
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import location_options
from bgworker.cli.completion import VARIABLE
from bgworker.errors import ConfigurationError, HostError, PluginError


class Verb(NamedTuple):
    """One verb of ours."""

    section: str
    #: Module in this package, and the click command in it.
    module: str
    attribute: str
    summary: str


_HOST, _LOOK, _WORKERS, _DATABASE, _WRITE = "The host", "What is going on", "Workers", "Database", "Writing workers"

#: In the order of the help.
VERBS: Final[dict[str, Verb]] = {
    "demo": Verb(_HOST, "demo", "demo", "See everything at work, in a temporary directory."),
    "run": Verb(_HOST, "run", "run", "Run the host in the foreground."),
    "plan": Verb(_HOST, "plan", "plan", "Print what a reload would do."),
    "reload": Verb(_HOST, "plan", "reload", "Make the host read workers.toml again."),
    "upgrade": Verb(_HOST, "upgrade", "upgrade", "Restart the workers that run old code, a few at a time."),
    "reexec": Verb(_HOST, "reexec", "reexec", "Let the host go on as what is installed now; workers run on."),
    "stop": Verb(_HOST, "host", "stop", "Stop the host and all its workers."),
    "systemd-unit": Verb(_HOST, "systemd_unit", "systemd_unit", "Print a unit file that runs this host."),
    "status": Verb(_LOOK, "status", "status", "Show the workers and how they are."),
    "top": Verb(_LOOK, "top", "top", "Look at them full-screen, and act on them."),
    "why": Verb(_LOOK, "why", "why", "Say why a worker does not run, or how it ended."),
    "logs": Verb(_LOOK, "logs", "logs", "Print what the host and the workers wrote."),
    "plugins": Verb(_LOOK, "plugins", "plugins", "List the installed plugins and which of them are activated."),
    "completion": Verb(_LOOK, "completion", "completion", "Print what makes a shell complete all this."),
    "register": Verb(_WORKERS, "register", "register", "Register a dynamic worker."),
    "start": Verb(_WORKERS, "act", "start", "Start a waiting worker now, or a static one that is over."),
    "restart": Verb(_WORKERS, "act", "restart", "Stop a worker and start it again."),
    "terminate": Verb(_WORKERS, "act", "terminate", "Stop a worker and keep it down."),
    "scale": Verb(_WORKERS, "scale", "scale", "Have another number of instances of a worker."),
    "signal": Verb(_WORKERS, "act", "signal", "Send a signal to a worker."),
    "wait": Verb(_WORKERS, "wait", "wait", "Wait until a worker has started, or is over."),
    "psql": Verb(_DATABASE, "psql", "psql", "Open psql on the host's database."),
    "pg": Verb(_DATABASE, "pg", "pg", "Run pg_dump or another of PostgreSQL's programs on it."),
    "notify": Verb(_DATABASE, "notify", "notify", "Send a notification."),
    "listen": Verb(_DATABASE, "notify", "listen", "Print notifications as they come."),
    "check": Verb(_WRITE, "check", "check", "Check workers.toml and the plugins; print what would run."),
    "exec": Verb(_WRITE, "execute", "execute", "Run one worker in this terminal, under a debugger if you like."),
    "import": Verb(_WRITE, "convert", "convert", "Make a workers.toml of a supervisord.conf or a Procfile."),
    "schema": Verb(_WRITE, "schema", "schema", "Print the JSON Schema of workers.toml."),
}

_HELP: Final = """Background workers as PostgreSQL has them, in Python: supervised, in slots, beside any PostgreSQL.

\b
  bgworker demo                  see it at work
  bgworker run                   run the workers of ./workers.toml
  bgworker status --watch        look at them

A worker is named by its name, its slot, or SLOT.GENERATION. Where a command takes several,
the name that instances share means all of them.
"""

#: Printed below the help: what a script needs to know.
_EPILOG: Final = """\b
Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 host not running,
4 timed out, 5 no free slot, 6 plan has changes, 7 (of run) an essential
worker failed.
Errors are ERROR, DETAIL and HINT lines on standard error.
"""


class _Verbs(click.Group):
    """Our verbs, then the plugins'."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all verbs."""
        return [*VERBS, *_plugin_commands()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one verb."""
        verb = VERBS.get(cmd_name)
        if verb is not None:
            command: click.Command = getattr(import_module(f"bgworker.cli.{verb.module}"), verb.attribute)
            return command
        plugin_command = _plugin_commands().get(cmd_name)
        return None if plugin_command is None else _load_plugin_command(plugin_command)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or say which one was probably meant."""
        word = args[0]
        if ctx.resilient_parsing:  # a shell asks how the line may go on: nothing to complain of
            return word, self.get_command(ctx, word), args[1:]
        command = None if word.startswith("-") else self.get_command(ctx, word)
        if command is None:
            near = _console.nearest(word, self.list_commands(ctx))
            raise ConfigurationError(
                f'there is no command "{word}"',
                message_hint=f"The nearest is: bgworker {near}" if near else "See all of them with: bgworker --help",
            )
        return word, command, args[1:]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the verbs that begin so, without importing one of them."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        found = {name: verb.summary for name, verb in VERBS.items()}
        found |= {name: f"From {command.plugin.distribution}." for name, command in _plugin_commands().items()}
        return [CompletionItem(name, help=summary) for name, summary in found.items() if name.startswith(incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs by section, without importing one of them."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, verb in VERBS.items():
            sections.setdefault(verb.section, []).append((name, verb.summary))
        for command in _plugin_commands().values():
            # Names out of other people's metadata: click prints what it is given.
            row = (_console.inert(command.name), f"From {_console.inert(command.plugin.distribution)}.")
            sections.setdefault("From plugins", []).append(row)
        width = max(len(name) for rows in sections.values() for name, _summary in rows)
        for section, rows in sections.items():
            with formatter.section(section):
                # One width for all sections, so that the summaries stand in one column.
                formatter.write_dl([(name.ljust(width), summary) for name, summary in rows])


def _plugin_commands() -> dict[str, Any]:
    """Return the plugins' verbs by name; those that bear the name of one of ours are left out."""
    from bgworker._plugins.discovery import commands

    try:
        return {command.name: command for command in commands() if command.name not in VERBS}
    # Other people's metadata must never keep our verbs from working.
    except Exception as error:
        _console.note("WARNING", f"could not look for the commands of plugins: {error}")
        return {}


def _load_plugin_command(command: Any) -> click.Command:
    from bgworker._plugins.discovery import parse_reference

    title = f'command "{command.name}" of plugin "{command.plugin.name}"'
    reference = parse_reference(command.value)
    try:
        found: Any = import_module(reference.module)
        for attribute in filter(None, reference.attribute.split(".")):
            found = getattr(found, attribute)
    except KeyboardInterrupt:
        raise
    # A plugin's module may raise anything while it is imported, SystemExit included.
    except BaseException as error:
        raise PluginError(
            f"{title} could not be loaded: {_one_line(error)}",
            f'It comes from distribution "{command.plugin.distribution}" {command.plugin.version}, entry point "{command.value}".',
            f"See the whole traceback with: python -c 'import {reference.module}'",
        ) from None
    if not isinstance(found, click.Command):
        raise PluginError(
            f"{title} cannot be run: {command.value} is not a click command",
            f"It is a {type(found).__name__}.",
        )
    return _guard(found, title)


def _guard(command: click.Command, title: str) -> click.Command:
    """Return a copy of a plugin's command that takes -D and -c too, and whose failures are named as its own."""
    guarded = copy.copy(command)
    taken = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    guarded.params = [*command.params, *(o for o in location_options() if not taken & set(o.opts))]

    def invoke(context: click.Context) -> Any:
        # Here, because -D may stand after the plugin's verb: its bgworker.connect() must find the same host.
        context.ensure_object(Invocation).export()
        try:
            return command.invoke(context)
        except (HostError, click.ClickException, click.exceptions.Exit, click.Abort, OSError):
            raise
        # Whatever else a plugin's code raises is reported as the plugin's.
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f'It was raised in "{frame.filename}", line {frame.lineno}.'
            raise PluginError(f"{title} failed: {_one_line(error)}", where) from error

    # The instance's own attribute goes before the method: the command's class is the plugin's choice.
    vars(guarded)["invoke"] = invoke
    return guarded


def _one_line(error: BaseException) -> str:
    return _console.inert(" ".join(f"{type(error).__name__}: {error}".split()))[:300].rstrip(".: ")


def _print_version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        _console.say(f"bgworker {_version.__version__}")
        context.exit()


def build() -> click.Group:
    """Return the whole command line."""
    version = click.Option(
        ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version and exit."
    )
    return _Verbs(
        "bgworker",
        params=[*location_options(), version],
        help=_HELP,
        epilog=_EPILOG,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
        no_args_is_help=False,
        invoke_without_command=True,
        callback=_without_verb,
    )


@click.pass_context
def _without_verb(context: click.Context) -> None:
    if context.invoked_subcommand is None:
        _console.say(context.get_help())
        context.exit(2)


def run(argv: Iterable[str]) -> int:
    """Parse the arguments, run the verb, return its exit code."""
    group = build()
    if (instruction := os.environ.get(VARIABLE)) is not None:
        return shell_complete(group, {"obj": Invocation()}, "bgworker", VARIABLE, instruction)
    try:
        # Not group.main(): it has words and exit codes of its own for Ctrl-C and for a closed pipe.
        with group.make_context("bgworker", list(argv), obj=Invocation()) as context:
            code = group.invoke(context)
    except click.exceptions.Exit as end:
        return int(end.exit_code)
    except click.Abort:
        return _console.INTERRUPTED
    except click.ClickException as error:
        return _console.complain(_in_our_words(error))
    # A plugin's verb may return anything.
    return code if isinstance(code, int) and not isinstance(code, bool) else 0


def _in_our_words(error: click.ClickException) -> HostError:
    """Return click's error as one of ours: usage errors as 2, the others as what they say."""
    message = " ".join(error.format_message().split()).rstrip(".")
    primary = message[:1].lower() + message[1:]
    if not isinstance(error, click.UsageError):
        return HostError(primary)
    path = error.ctx.command_path if error.ctx is not None else "bgworker"
    hint = f"See: {path} --help"
    if isinstance(error, click.NoSuchOption):
        # click's own suggestion is worded anew in each version, and may name what is hidden.
        primary = f'there is no option "{error.option_name}"'
        shown = [p for p in (error.ctx.command.params if error.ctx else ()) if not getattr(p, "hidden", False)]
        if near := _console.nearest(error.option_name, [name for p in shown for name in p.opts if name.startswith("--")]):
            hint = f"The nearest is {near}. {hint}"
    return ConfigurationError(primary, message_hint=hint)
