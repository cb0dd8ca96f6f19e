"""The hooks that a plugin may implement. Plugins import ``hookimpl`` from here, or from ``bgworker``.

No logic lives here. A plugin is an object named by an entry point in the group
``bgworker.plugins``, most often the package itself, whose functions of the names below are
marked with ``@hookimpl``. All hooks are optional, and a hook may accept fewer arguments than
it is offered.

A plugin is active once ``shared_preload_libraries`` in workers.toml names it. No hook ever
runs in the host's own process: they run in the loader and in the launcher, under guard and
plugin by plugin, so that no plugin can hinder another or the host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from pluggy import HookimplMarker, HookspecMarker

if TYPE_CHECKING:
    from bgworker import BackgroundWorker, BackgroundWorkerHandle

__all__ = [
    "BackgroundWorkerRegistry",
    "Event",
    "RunningHost",
    "bgworker_event",
    "bgworker_init",
    "bgworker_ready",
    "bgworker_settings",
    "hookimpl",
    "hookspec",
]

#: Marks what a plugin implements.
hookimpl = HookimplMarker("bgworker")
#: Marks the hooks below; a plugin has no use for it.
hookspec = HookspecMarker("bgworker")


class BackgroundWorkerRegistry(Protocol):
    """What ``bgworker_init`` is given; it works only until that hook returns."""

    @property
    def settings(self) -> Any:
        """The plugin's settings: an instance of the type ``bgworker_settings`` gave; without one, the raw table."""

    def register_background_worker(self, worker: BackgroundWorker) -> None:
        """Register one static worker.

        Raises:
            RegistrationError: ``worker`` is no ``BackgroundWorker``, or ``bgworker_init`` is over.
        """


class RunningHost(Protocol):
    """What ``bgworker_ready`` is given."""

    def register_dynamic_background_worker(self, worker: BackgroundWorker, if_absent: bool = False) -> BackgroundWorkerHandle:
        """Register one dynamic worker with the running host.

        With ``if_absent`` a registered worker of the same bgw_name is left as it is, and the
        handle is that worker's.

        Raises:
            NoFreeSlot: Every slot is taken.
            RegistrationError: The registration was refused.
        """


class Event(TypedDict):
    """Something that happened to a background worker, or to the host.

    ``event`` is ``started``, ``exited``, ``state`` or ``host``; a plugin ignores kinds it does
    not know. For an event of the host the fields about a worker are absent or null.
    """

    event: str
    #: RFC 3339.
    at: str
    slot: int | None
    generation: int | None
    bgw_name: str | None
    bgw_type: str | None
    pid: int | None
    #: As ``status --json`` has it.
    state: str | None
    #: ``code``, ``signal``, ``at`` and ``reason`` of the exit.
    last_exit: dict[str, Any] | None
    #: The event as a sentence.
    message: str


@hookspec(firstresult=True)
def bgworker_settings() -> type | None:
    """Return the type of this plugin's settings: a dataclass or a ``msgspec.Struct``.

    When: once after the plugin was imported, before ``bgworker_init``.
    Where: the loader; ``bgworker check`` calls it in a throw-away process.
    How often: once per loader. A loader is replaced at a reload and after a crash.
    Exception: the plugin is broken: it is set aside, named with its traceback in
    ``bgworker status``, and its workers are not started. The other plugins go on.

    The table ``[settings.NAME]`` of workers.toml is checked against the type, NAME being the
    plugin's. Types are strict, keys the type does not have are errors, fields with defaults
    may be left out. A ``ValueError`` out of ``__post_init__`` is shown as a mistake in the
    file. A reload reads the table again; a worker sees the new values once it has called
    ``bgworker.worker.process_config_file()``.

    Example::

        @dataclass(frozen=True)
        class Settings:
            naptime: float = 10.0

        @hookimpl
        def bgworker_settings():
            return Settings
    """


@hookspec
def bgworker_init(registry: BackgroundWorkerRegistry) -> None:
    """Register this plugin's static workers: PostgreSQL's ``_PG_init``.

    When: while the host starts or reloads, after ``bgworker_settings``.
    Where: the loader, from which the workers are cloned: what is imported here is shared with
    them. Start no thread, open no connection and change no signal here.
    How often: once per loader, so it may be called again after a reload, and must then
    register the workers that should exist, not only the new ones.
    Exception: the plugin is broken, as with ``bgworker_settings``, and none of the workers it
    registered before the exception is kept.

    workers.toml has the last word: a ``[[worker]]`` of the same bgw_name overrides keys.

    Example::

        @hookimpl
        def bgworker_init(registry):
            for number in range(registry.settings.total_workers):
                registry.register_background_worker(
                    BackgroundWorker(
                        bgw_name=f"counter {number}",
                        bgw_library_name="my_plugin",
                        bgw_function_name="counter_main",
                        bgw_main_arg=number,
                    )
                )
    """


@hookspec
def bgworker_ready(host: RunningHost) -> None:
    """Act on the running host: register dynamic workers.

    When: once the host runs: its static workers are registered, and the database, if there is
    one, is as far as it gets.
    Where: the launcher, a worker of the host's own that exists only if a plugin needs it. It
    has no database connection.
    How often: once in the host's life for each plugin; not again when the launcher was
    restarted. Only a launcher that dies inside this hook calls it again, so say
    ``if_absent=True``.
    Exception: logged with the plugin's name and traceback; the hook is not called again, and
    the other plugins go on.

    The hooks of all plugins share this one process, so return soon: lasting work belongs to a
    worker.

    Example::

        @hookimpl
        def bgworker_ready(host):
            host.register_dynamic_background_worker(
                BackgroundWorker(bgw_name="listener", bgw_library_name="my_plugin", bgw_function_name="listen_main"),
                if_absent=True,
            )
    """


@hookspec
def bgworker_event(event: Event) -> None:
    """Take note of something that happened: a worker started, exited or changed its state.

    When: after it happened, in order; also for workers of other plugins.
    Where: the launcher, as ``bgworker_ready``.
    How often: once per event while the launcher runs. Events while it is being restarted are
    not repeated: ask for the status instead of counting on every one.
    Exception: logged with the plugin's name and traceback; later events are still given to
    the plugin.

    The event is the plugin's own copy. Return soon: the next event waits.

    Example::

        @hookimpl
        def bgworker_event(event):
            if event["event"] == "exited":
                print(event["message"])
    """
