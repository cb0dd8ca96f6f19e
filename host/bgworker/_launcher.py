"""The launcher: a worker of ours, in which the plugins' bgworker_ready and bgworker_event hooks run.

An ordinary worker function (library ``bgworker``, function ``launcher_main``), so the host
starts, restarts and stops it like any other. It inherits the loaded plugins from the loader.
Must never let one plugin's exception reach another plugin, nor call bgworker_ready of a
plugin twice in a host's life: which ones are done is kept by the host, because this process
may be killed at any time.

It exists only while a plugin needs it, and stays when all hooks of the first kind are done:
a reload may bring more.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol

from bgworker._plugins.discovery import InstalledPlugin, installed_plugins, select
from bgworker._plugins.manager import PluginHost
from bgworker._spec import BackgroundWorker
from bgworker.errors import HostError, PluginError, RegistrationError

if TYPE_CHECKING:
    from bgworker import BackgroundWorkerHandle

#: What bgworker_event is told; notices of other kinds (``notify``) are for those who asked for them.
EVENT_KINDS: Final = ("started", "exited", "state", "host")


class _Channel(Protocol):
    """The part of the worker's channel to the host that the launcher uses."""

    def request(self, method: str, params: dict[str, Any]) -> Any: ...

    def subscribe_events(self) -> None: ...

    def take_events(self) -> list[dict[str, Any]]: ...


class _RunningHost:
    """What bgworker_ready is given (hookspecs.RunningHost): registration, and nothing that could do harm."""

    def register_dynamic_background_worker(self, worker: BackgroundWorker, if_absent: bool = False) -> BackgroundWorkerHandle:
        """Register a dynamic worker, or find the one of this name that is registered already."""
        from bgworker import worker as face

        if not isinstance(worker, BackgroundWorker):
            raise RegistrationError(
                f"background worker cannot be registered: {type(worker).__name__} is not a BackgroundWorker",
                message_hint="Give register_dynamic_background_worker() a bgworker.BackgroundWorker.",
            )
        return face.register_dynamic_background_worker(worker, if_absent=if_absent)


class Launcher:
    """The launcher's work, apart from the loop around it.

    Args:
        plugins: The loaded plugins.
        channel: To the host.
        let_through: Exceptions that end the launcher and are no plugin's failure.
    """

    def __init__(self, plugins: PluginHost, channel: _Channel, let_through: tuple[type[BaseException], ...] = ()) -> None:
        self._plugins = plugins
        self._channel = channel
        self._let_through = let_through

    def make_ready(self, done: Iterable[str]) -> None:
        """Call bgworker_ready of every plugin that is not done, and tell the host of each."""
        already = set(done)
        for name in self._plugins.implementing("bgworker_ready"):
            if name in already:
                continue
            try:
                self._plugins.ready(name, _RunningHost(), self._let_through)
            except PluginError as error:
                _log(error)
            # A failed one is done too: the hook's promise is "once", and a restart would fail in the same way.
            self._channel.request("ready_done", {"plugin": name})

    def pass_events(self) -> None:
        """Give every event that has arrived to every plugin that wants events, in order."""
        for event in self._channel.take_events():
            if event.get("event") not in EVENT_KINDS:
                continue
            for name in self._plugins.implementing("bgworker_event"):
                try:
                    # A copy each: what one plugin does to its event must not show in another's.
                    self._plugins.event(name, copy.deepcopy(event), self._let_through)  # type: ignore[arg-type]
                except PluginError as error:
                    _log(error)


def launcher_main(main_arg: Any) -> None:
    """Run the hooks until told to terminate.

    Args:
        main_arg: ``{"done": [names]}``, the plugins whose bgworker_ready has been called in
            this host's life; ``"load": [names]`` besides, plugins that the loader did not
            import because they start threads.
    """
    from bgworker import worker
    from bgworker._worker import runtime

    arg = main_arg or {}
    current = runtime.current()
    plugins = current.plugins if isinstance(current.plugins, PluginHost) else PluginHost()
    # While signals are blocked: an order to terminate must not look like the failure of an import.
    load_here(plugins, arg.get("load", ()))
    worker.unblock_signals()
    launcher = Launcher(plugins, current.channel, (worker.Terminated,))
    # Before the hooks: what they register already gives events.
    current.channel.subscribe_events()
    worker.report_activity("running", "bgworker_ready")
    launcher.make_ready(arg.get("done", ()))
    worker.report_activity("idle", "")
    # The first pass comes at once, for the events that arrived meanwhile.
    for _ in worker.latch_loop(wait_event="LauncherMain"):
        if worker.config_reload_pending():
            worker.process_config_file()
        launcher.pass_events()


def load_here(plugins: PluginHost, names: Iterable[str]) -> None:
    """Load plugins that are not inherited; one that fails is logged and left out."""
    wanted = [name for name in names if name not in plugins.names]
    if not wanted:
        return
    selection = select(wanted, installed_plugins())
    for error in selection.missing:
        _log(error)
    found: list[InstalledPlugin | str] = [*selection.active, *selection.modules]
    for plugin in found:
        try:
            plugins.load(plugin)
        except PluginError as error:
            _log(error)


def _log(error: HostError) -> None:
    """Write an error to this worker's log, with its traceback."""
    sys.stderr.write("\n".join(error.lines()) + "\n")
    sys.stderr.flush()
