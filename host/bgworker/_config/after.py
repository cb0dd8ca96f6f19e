"""The static workers looked at as a whole: names that two of them bear, names in ``after`` that nobody bears, and circles.

Pure. A file with such an error is refused as a whole, before anything starts or changes: nobody could
say which worker of a circle is the wrong one. Used by the loader, when it has merged the static workers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from bgworker import _after
from bgworker._config.findings import nearest
from bgworker._config.merge import StaticWorker, StaticWorkers
from bgworker._config.model import shortened
from bgworker._spec import BackgroundWorker
from bgworker.errors import ConfigurationError

__all__ = ["check_after", "check_names", "circle_error", "unknown_name", "waits_for_ever"]


def check_names(merged: StaticWorkers) -> list[ConfigurationError]:
    """Return an error for each worker whose name is also that of another one's instance."""
    errors = []
    first: dict[str, StaticWorker] = {}
    for each in merged.workers:
        name = each.worker.bgw_name
        if (before := first.setdefault(name, each)) is not each:
            of = before if before.worker.instance else each
            errors.append(
                ConfigurationError(
                    f'background worker name "{shortened(name)}" is given twice',
                    f"It is that of instance {of.worker.instance} of {shortened(of.worker.instance_of)}, and of another worker. "
                    f"They are set in {before.origins['bgw_name']} and {each.origins['bgw_name']}.",
                    "Give one of them another name.",
                )
            )
    return errors


def check_after(merged: StaticWorkers, broken_plugins: Collection[str]) -> list[ConfigurationError]:
    """Return what is wrong with the ``after`` of all workers; warn of those that wait for nobody who could come.

    Args:
        merged: The static workers; warnings are added.
        broken_plugins: Plugins that could have registered more workers than are known.
    """
    graph = {each.worker.bgw_name: _after.names(each.worker.after) for each in merged.workers}
    for each in merged.workers:
        if each.worker.instance:
            # All of them are meant by the name without a number.
            graph.setdefault(each.worker.instance_of, set()).add(each.worker.bgw_name)
    origins = {each.worker.bgw_name: each.origins["after"] for each in merged.workers}
    absent = {each["bgw_name"]: "is not registered" for each in merged.rejected}
    absent |= dict.fromkeys(merged.switched_off, "is switched off")
    bearers: dict[str, list[BackgroundWorker]] = {}
    for each in merged.workers:
        for bearer in filter(None, (each.worker.bgw_name, each.worker.instance_of)):
            bearers.setdefault(bearer, []).append(each.worker)
    for each in merged.workers:
        merged.warnings += (f"{said} It is set in {each.origins['after']}." for said in waits_for_ever(each.worker, bearers))
    errors = []
    for name, before in graph.items():
        if name not in origins:
            continue
        for other in sorted(before - graph.keys()):
            why = absent.get(other, "" if not broken_plugins else f"is unknown while plugin {min(broken_plugins)} is broken")
            if why:
                merged.warnings.append(
                    f'background worker "{shortened(name)}" waits: it comes after "{shortened(other)}", which {why}'
                )
            else:
                near = nearest(other, sorted({*graph, *absent} - {name}))
                errors.append(ConfigurationError(*unknown_name(name, other, f"It is set in {origins[name]}.", near)))
    if cycle := _after.find_cycle(graph):
        places = ", ".join(dict.fromkeys(origins[name] for name in cycle[:12] if name in origins))
        errors.append(ConfigurationError(*circle_error(cycle, f"None of them could ever be started. It is set in {places}.")))
    return errors


def waits_for_ever(worker: BackgroundWorker, bearers: Mapping[str, Sequence[BackgroundWorker]]) -> Iterator[str]:
    """Yield a warning for each worker whose end this one waits for, and which never ends for good by itself.

    Args:
        worker: Normalised, as all here.
        bearers: Who bears which name.
    """
    for other in worker.awaited:
        why = next(filter(None, map(_endless, bearers.get(other.name, ()))), "") if other.condition == "finished" else ""
        if why:
            name, awaited = shortened(worker.bgw_name), shortened(other.name)
            yield f'background worker "{name}" waits for ever: it comes after "{awaited}:finished", and that never is: {why}.'


def _endless(worker: BackgroundWorker) -> str:
    """Return what starts a worker again however well it ends; empty if nothing does."""
    if worker.schedule is not None:
        return "its schedule starts it again, however it ended"
    if worker.restart_on != "always":
        return ""
    default = ", the default of a command," if worker.command is not None else ""
    return f'restart_on = "always"{default} starts it again after a success, too'


def unknown_name(name: str, other: str, detail: str, near: Sequence[str] = ()) -> tuple[str, str, str]:
    """Return the error for a worker that comes after nobody: primary, detail and hint."""
    hint = f'The nearest is "{shortened(near[0])}".' if near else f'Write "NAME" or "NAME:{"|".join(_after.CONDITIONS)}".'
    who, whom = shortened(name), shortened(other)
    return (
        f'background worker "{who}" cannot be registered: after names "{whom}", and there is no such worker',
        detail,
        hint,
    )


def circle_error(cycle: list[str], detail: str) -> tuple[str, str, str]:
    """Return the error for workers that come after each other."""
    shown = " after ".join(map(shortened, [*cycle[:12], *(["..."] if len(cycle) > 12 else [])]))
    return f"background workers wait for each other: {shown}", detail, "Take one of these names out of after."
