"""The static workers: what plugins register, changed by workers.toml, and workers.toml's own.

Pure. One worker that cannot be registered never stops the others: it is listed under
``rejected`` with the reason. How many fit into the slots is the host's to decide
(C14); ``excess`` tells ``check`` what it will decide. The loader and ``check`` use it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from msgspec import UNSET

from bgworker._config.checks import registration_values
from bgworker._config.findings import nearest, shown_key
from bgworker._config.model import Configuration, WorkerTable, shortened, worker_label
from bgworker._spec import FIELD_NAMES, BackgroundWorker, printable, sanity_check
from bgworker.errors import ConfigurationError, RegistrationError

__all__ = [
    "PluginRegistration",
    "StaticWorker",
    "StaticWorkers",
    "apply_overrides",
    "excess",
    "excess_error",
    "merge_static_workers",
    "origin_of_entry",
]

#: No worker in Python has less memory resident when its function begins: interpreter and runtime alone have about 20 MiB.
LEAST_MEMORY: Final = 16 << 20
#: No process has less; somebody has forgotten the M.
LEAST_OF_COMMAND: Final = 1 << 16
#: Origin of a value that nobody set.
DEFAULT: Final = "default"
#: What BackgroundWorker has for each key; bgw_name has no default and is always somebody's.
_DEFAULTS: Final = BackgroundWorker(bgw_name="")


@dataclass(frozen=True)
class PluginRegistration:
    """A worker that a plugin registered while it was initialised."""

    plugin: str
    worker: BackgroundWorker


@dataclass(frozen=True)
class StaticWorker:
    """A worker that can be registered."""

    #: Sane, defaults filled in.
    worker: BackgroundWorker
    #: Key -> ``workers.toml [[worker]] #2``, ``plugin notify_demo`` or ``default``.
    origins: dict[str, str]


@dataclass
class StaticWorkers:
    """What the host is to register, in this order."""

    workers: list[StaticWorker] = field(default_factory=list)
    #: ``bgw_name`` and ``error``, as status shows them.
    rejected: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    #: Names that ``enabled = false`` switches off, with the entry that does.
    switched_off: dict[str, str] = field(default_factory=dict)

    def reject(self, name: str, error: str) -> None:
        """List a worker that is not registered."""
        self.rejected.append({"bgw_name": name, "error": error})


def merge_static_workers(
    configuration: Configuration, registrations: Sequence[PluginRegistration], active_plugins: Collection[str]
) -> StaticWorkers:
    """Return the static workers: the file's own first, then the plugins', each in the order written.

    Args:
        configuration: The file.
        registrations: In the order of shared_preload_libraries.
        active_plugins: Names of the plugins that were loaded; the others' settings only give warnings.
    """
    merged = StaticWorkers()
    has_database = configuration.database is not None
    #: Who has a name: entries before plugins, because the operator's word is the last.
    taken: dict[str, str] = {}
    overrides: dict[str, tuple[str, WorkerTable]] = {}
    for number, table in enumerate(configuration.worker, 1):
        origin = origin_of_entry(configuration, number)
        if table.is_override:
            overrides[table.bgw_name] = (origin, table)
            continue
        taken[table.bgw_name] = origin
        worker = apply_overrides(BackgroundWorker(bgw_name=table.bgw_name), table)
        _admit(merged, worker, _origins(worker, origin, table), table, origin, has_database=has_database)
    registered: set[str] = set()
    for registration in registrations:
        worker, owner = registration.worker, f'plugin "{registration.plugin}"'
        # Plugin code filled this dataclass, which checks nothing.
        name = worker.bgw_name if isinstance(worker.bgw_name, str) else repr(worker.bgw_name)
        registered.add(name)
        if (before := taken.setdefault(name, owner)) is not owner:
            reason = f"the name is already that of a worker of {before}"
            merged.reject(name, f'background worker "{printable(name)}" of {owner} cannot be registered: {reason}')
            continue
        origins = _origins(worker, f"plugin {registration.plugin}")
        origin, override = overrides.get(name, ("", None))
        if override is not None:
            worker = apply_overrides(worker, override)
            origins |= {key: origin for key in _keys_set(override) if key != "bgw_name"}
        _admit(merged, worker, origins, override, origin, has_database=has_database, owner=owner)
    for name, (origin, _) in overrides.items():
        if name not in registered:
            merged.reject(name, _no_such_worker(name, configuration.overrides.get(name, origin), registered))
    merged.warnings += _settings_warnings(configuration, active_plugins)
    return merged


def apply_overrides(worker: BackgroundWorker, table: WorkerTable) -> BackgroundWorker:
    """Return the registration with the keys that a [[worker]] sets; pure, and not checked."""
    return replace(worker, **registration_values({key: getattr(table, key) for key in table.__struct_fields__}))


def origin_of_entry(configuration: Configuration, number: int) -> str:
    """Return how a value's origin, and messages, name one entry of the file; the number counts from 1."""
    path, number = configuration.places[number - 1] if configuration.places else (configuration.path, number)
    return f"{printable(os.path.basename(path)) or 'workers.toml'} {worker_label(number, None)}"


def excess(workers: Sequence[StaticWorker], slots: int) -> list[StaticWorker]:
    """Return the workers that get no slot (C14), of the number of slots that the host has for static workers."""
    return list(workers[max(slots, 0) :])


def excess_error(workers: Sequence[StaticWorker], slots: int) -> ConfigurationError | None:
    """Return the error that ``check`` reports when there are more static workers than slots; None when they fit."""
    left_out = excess(workers, slots)
    if not left_out:
        return None
    names = ", ".join(f'"{shortened(worker.worker.bgw_name)}"' for worker in left_out[:3])
    more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
    return ConfigurationError(
        f"too many background workers: {len(left_out)} of {len(workers)} get no slot",
        f"Up to {slots} background workers can be registered with the current settings. Left out: {names}{more}.",
        'Consider increasing the configuration parameter "max_worker_processes" in [host].',
    )


def _admit(
    merged: StaticWorkers,
    worker: BackgroundWorker,
    origins: dict[str, str],
    table: WorkerTable | None,
    origin: str,
    *,
    has_database: bool,
    owner: str = "",
) -> None:
    """Add a worker to those that run, or to those that are rejected or switched off."""
    name = str(worker.bgw_name)
    if table is not None and not table.enabled:
        merged.switched_off[name] = origin
        return
    try:
        if worker.bgw_notify_pid:
            raise RegistrationError(
                f'background worker "{printable(name)}" cannot be registered: bgw_notify_pid is set',
                "Only dynamic background workers can request notification.",
            )
        if worker.instance:
            raise RegistrationError(
                f'background worker "{printable(name)}" cannot be registered: instance is set',
                "Only workers.toml makes several instances of a worker.",
                "Leave it out, and set instances in a [[worker]] of this name.",
            )
        sane = sanity_check(worker, is_dynamic=False, has_database=has_database)
        # The one conversion that later steps rely on; it fails for flags or start times of a wrong type.
        sane.to_dict()
        made = _instances(sane, table, has_database=has_database)
    except RegistrationError as error:
        merged.reject(name, _one_line(error, _provenance(owner, origin)))
    except Exception as error:  # a plugin's values can be of any type, and fail in any way
        problem = f'background worker "{printable(name)}" cannot be registered: a value of it has the wrong type'
        merged.reject(name, _one_line(RegistrationError(problem, f"{printable(str(error))[:200]}."), _provenance(owner, origin)))
    else:
        merged.workers += [StaticWorker(each, origins) for each in made]
        if sane.wake_on and not has_database:
            merged.warnings.append(f'wake_on of background worker "{printable(name)}" has no effect: there is no [database]')
        if warning := _memory_warning(sane):
            merged.warnings.append(warning)


def _memory_warning(worker: BackgroundWorker) -> str:
    """Return what is wrong with a max_memory that the worker is over from its start; empty if nothing is known to be."""
    given = worker.max_memory
    least, needed = LEAST_MEMORY, f"a Python worker uses more than {LEAST_MEMORY >> 20}M"
    if worker.command is not None:
        least, needed = LEAST_OF_COMMAND, "no program runs in that"
    if not isinstance(given, int) or given >= least:
        return ""
    shown = f"{given >> 20}M" if given % (1 << 20) == 0 else f"{given} bytes"
    name = printable(worker.bgw_name)
    return f'max_memory of background worker "{name}" is {shown}, and {needed}: it would be stopped soon after each start'


def _instances(worker: BackgroundWorker, table: WorkerTable | None, *, has_database: bool) -> list[BackgroundWorker]:
    """Return the workers that one entry makes: one of its name, or as many as it says, numbered from 1.

    Raises:
        RegistrationError: A name with its number is too long.
    """
    if table is None or not isinstance(table.instances, int):
        return [worker]
    numbered = (replace(worker, bgw_name=name, instance=number) for number, name in enumerate(table.names, 1))
    return [sanity_check(each, is_dynamic=False, has_database=has_database) for each in numbered]


def _provenance(owner: str, origin: str) -> str:
    if owner and origin:
        return f"It is registered by {owner} and changed by {origin}."
    return f"It is registered by {owner or origin}."


def _one_line(error: RegistrationError, provenance: str) -> str:
    parts = [f"{error.message_primary}.", error.message_detail, error.message_hint, provenance]
    return " ".join(part for part in parts if part)


def _keys_set(table: WorkerTable) -> list[str]:
    return [key for key in table.__struct_fields__ if key not in ("enabled", "instances") and getattr(table, key) is not UNSET]


def _origins(worker: BackgroundWorker, owner: str, table: WorkerTable | None = None) -> dict[str, str]:
    """Return where each key of a registration is from; a plugin's value that equals the default counts as default."""
    if table is not None:
        set_keys = frozenset(_keys_set(table))
    else:
        set_keys = frozenset(key for key in FIELD_NAMES if getattr(worker, key) != getattr(_DEFAULTS, key))
    return {key: owner if key in set_keys else DEFAULT for key in FIELD_NAMES}


def _no_such_worker(name: str, place: str, registered: Collection[str]) -> str:
    near = nearest(name, registered, count=3)
    names = ", ".join(f'"{shortened(candidate)}"' for candidate in near)
    return (
        f'{place} "{shortened(name)}" cannot be registered: it names neither bgw_library_name nor '
        f"command, and no active plugin registers a background worker of this name"
        + (f"; the nearest registered {'names are' if len(near) > 1 else 'name is'} {names}" if near else "")
        + ". Set bgw_library_name and bgw_function_name, or command, or list the plugin that registers it in "
        + "shared_preload_libraries."
    )


def _settings_warnings(configuration: Configuration, active_plugins: Collection[str]) -> list[str]:
    warnings = []
    for name in configuration.settings:
        if name not in active_plugins:
            near = nearest(name, active_plugins)
            warnings.append(
                f"[settings.{shown_key(name)}] has no effect: no active plugin has this name"
                + (f', the nearest is "{shortened(near[0])}"' if near else "")
            )
    return warnings
