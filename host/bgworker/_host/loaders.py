"""The loader that serves births, and during a reload the candidate that is to follow it.

A reload never changes a loader: a new one reads the file and imports the plugins, and only
when all of that went well does it take over. A loader that dies at an import is replaced by
one that leaves the plugin out; one that dies later is replaced by its like, from the
configuration that was last accepted, whatever the file says by now.

A request to reload is answered by a loader that was started after it: whoever has saved the
file and then asks must not be told of what the file said before. A plan is asked of such a
candidate too, which is then dropped; an upgrade takes the new code with the configuration
that is in force.
"""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from bgworker._control.protocol import Message
from bgworker._core.codec import expect
from bgworker._host.helper_process import HelperProcess
from bgworker._loop import Loop
from bgworker.errors import ConfigurationError, HostError, PluginError, error_from_dict

#: Called when a reload has ended: with nothing, or with what was wrong. For a plan, ``candidate.ready`` is what it is about.
Done = Callable[[HostError | None], None]


class Ask(enum.Enum):
    """What a candidate is for, as errors name it."""

    #: To read the file, and to take over.
    RELOAD = "reload"
    #: To read the file.
    PLAN = "plan a reload"
    #: To take over, with the configuration that is in force and the code as it is now.
    UPGRADE = "upgrade"


class _Request(NamedTuple):
    ask: Ask
    done: Done


#: How often a candidate may end without a plugin to blame before the reload is given up.
_MAX_DEATHS: Final = 3
#: Reload requests that wait for the next one; all of them share it.
_MAX_WAITING: Final = 1000


@dataclass(eq=False)
class Loader:
    """One loader process and what it has said."""

    process: HelperProcess
    #: The text of workers.toml to use; None reads the file.
    config_text: str | None
    is_ready: bool = False
    importing: str | None = None
    import_deadline: float | None = None
    ready: Message = field(default_factory=dict)
    #: It has said that the configuration has errors.
    has_complained: bool = False
    #: Plugins never touched again by this loader and its replacements, with what they did.
    excluded: dict[str, str] = field(default_factory=dict)
    #: Plugins that spoil a process that is to be cloned, with what is said of them.
    exec_only: dict[str, str] = field(default_factory=dict)
    #: Ends in a row with nobody to blame and nothing loaded.
    deaths: int = 0
    is_upgrade: bool = False


#: What of a serving loader is written as it is: its next process is told the same.
_CARRIED: Final = ("config_text", "ready", "excluded", "exec_only", "is_upgrade")


class Loaders:
    """Keeps one loader ready.

    Args:
        loop: The host's loop.
        fds: Lifeline and lock.
        configure: Makes the configure message's common part, with its descriptors.
        load_timeout: Seconds that one plugin's import and hooks may take.
        on_ready: Called with a loader that has taken over, and whether it came by a first start or a reload.
        on_gone: Called when the serving loader has died.
        on_answer: Called with birth answers of the serving loader.
        on_fatal: Called when the first loader finds the configuration wrong.
        log: Writes a log line.
        output_fds: What the loader has for its standard output and error.
        vet: Says why what a candidate has found must not be taken; not what was asked for, that is known here.
    """

    def __init__(
        self,
        loop: Loop,
        fds: tuple[int, int],
        configure: Callable[[], tuple[Message, list[int]]],
        load_timeout: float,
        config_text: str | None,
        on_ready: Callable[[Message, bool], None],
        on_gone: Callable[[], None],
        on_answer: Callable[[Message], None],
        on_fatal: Callable[[list[HostError]], None],
        log: Callable[..., None],
        output_fds: tuple[int, int],
        vet: Callable[[Message], HostError | None] = lambda message: None,
    ) -> None:
        self._loop, self._fds, self._configure, self._load_timeout = loop, fds, configure, load_timeout
        self._on_ready, self._on_gone, self._on_answer, self._on_fatal, self._log = on_ready, on_gone, on_answer, on_fatal, log
        self._output_fds, self._vet = output_fds, vet
        self.current: Loader = self._new(config_text)
        self.candidate: Loader | None = None
        #: Who is answered when the candidate has come to an end, and who asked since it was started.
        self._requests: list[_Request] = []
        self._next: list[_Request] = []
        self._retiring: list[Loader] = []
        self._was_ready_once = False
        self._last_complaint = ""

    def _new(self, config_text: str | None) -> Loader:
        loader: Loader

        def started() -> None:
            loader.is_ready = False
            loader.importing = None
            loader.has_complained = False
            # Covers the loader's own start; each plugin gets its own time below.
            loader.import_deadline = time.monotonic() + self._load_timeout
            message, fds = self._configure()
            message |= {"config_text": loader.config_text, "excluded": loader.excluded, "exec_only": loader.exec_only}
            loader.process.send(message, fds)

        process = HelperProcess(
            self._loop,
            "loader",
            "bgworker._loader",
            self._fds,
            started,
            lambda message: self._message(loader, message),
            lambda status: self._exited(loader, status),
            self._output_fds,
            lambda problem: self._log("WARNING", "the loader process sent nonsense and is replaced", f"It sent {problem}."),
            owns_session=False,
        )
        loader = Loader(process, config_text)
        return loader

    @property
    def is_busy(self) -> bool:
        """Whether a configuration is being read, or plugins are being loaded anew."""
        return self.candidate is not None or bool(self._retiring)

    def carry(self) -> dict[str, Any]:
        """Return what the serving loader was made of and has said; the process itself is not carried."""
        return {
            **{name: getattr(self.current, name) for name in _CARRIED},
            "was_ready_once": self._was_ready_once,
            "last_complaint": self._last_complaint,
        }

    def resume(self, carried: Mapping[str, Any]) -> None:
        """Have the first loader be the like of the one that ``carry`` has told of, as when that had died."""
        expect(carried, self.carry(), "what is known of the loader")
        for name in _CARRIED:
            setattr(self.current, name, carried[name])
        self._was_ready_once, self._last_complaint = bool(carried["was_ready_once"]), str(carried["last_complaint"])

    def hold(self, is_held: bool) -> None:
        """End the serving loader and start no other one; or let one be started again."""
        self.current.process.hold(is_held)
        if is_held:
            self.current.importing = None  # which is not to blame
            self.current.process.kill()

    def ensure(self, now: float) -> None:
        """Start what should run, and end what takes too long."""
        for loader in (self.current, self.candidate, *self._retiring):
            if loader is None:
                continue
            loader.process.ensure(now)
            if loader.import_deadline is not None and now >= loader.import_deadline and loader.process.pid is not None:
                loader.import_deadline = None
                if loader.importing:
                    self._exclude(loader, loader.importing, f"importing it did not finish within {self._load_timeout:g} seconds")
                    loader.importing = None
                loader.process.kill()

    def next_deadline(self) -> float | None:
        """Return when ``ensure`` has something to do at the latest."""
        times: list[float] = []
        for loader in (self.current, self.candidate, *self._retiring):
            if loader is None:
                continue
            if (start_at := loader.process.next_deadline()) is not None:
                times.append(start_at)
            if loader.import_deadline is not None and loader.process.pid is not None:
                times.append(loader.import_deadline)
        return min(times, default=None)

    def send(self, message: Message, fds: list[int]) -> bool:
        """Send to the serving loader; False while there is none."""
        return self.current.is_ready and self.current.process.send(message, fds)

    def reload(self, done: Done, ask: Ask = Ask.RELOAD) -> None:
        """Start a candidate that reads the file anew; requests that come meanwhile share the one after it."""
        if self.candidate is None:
            self._start_candidate([_Request(ask, done)])
        elif len(self._next) < _MAX_WAITING:
            self._next.append(_Request(ask, done))
        else:
            done(_refusal(ask, HostError("too many requests to reload are waiting", message_hint="Try again later.")))

    def _start_candidate(self, requests: list[_Request]) -> None:
        """Start one candidate for the first of the requests and those that can share it."""
        is_upgrade = requests[0].ask is Ask.UPGRADE
        self._requests = [request for request in requests if (request.ask is Ask.UPGRADE) is is_upgrade]
        self._next = [request for request in requests if request not in self._requests]
        if is_upgrade:
            self._log("LOG", "received upgrade request, loading the plugins anew")
        elif self._is_to_take_over:
            self._log("LOG", "received reload request, reading the configuration")
        # New code gets a new chance: nothing is known of its plugins.
        self.candidate = self._new(self.current.config_text if is_upgrade else None)
        self.candidate.is_upgrade = is_upgrade

    @property
    def _is_to_take_over(self) -> bool:
        return any(request.ask is not Ask.PLAN for request in self._requests)

    def cancel_reload(self, failure: HostError) -> None:
        """Give up the reload that is going on, if one is, and those that wait for it, because of what the failure says."""
        self._requests += self._next
        self._next = []
        if self.candidate is not None:
            self._drop_candidate(failure)

    @property
    def exec_only(self) -> dict[str, str]:
        """Plugins whose workers are executed, because they spoil a process that is to be cloned."""
        return self.current.exec_only

    def processes(self) -> list[HelperProcess]:
        """Return every loader process there is."""
        loaders = [self.current, self.candidate, *self._retiring]
        return [loader.process for loader in loaders if loader is not None]

    def replace_hung(self) -> None:
        """End the serving loader, which does not answer; another one follows."""
        self.current.process.kill()

    def stop(self) -> None:
        """Want no loader any more. One that is still loading has nothing to finish, and would not listen."""
        for loader in (self.current, self.candidate, *self._retiring):
            if loader is None:
                continue
            loader.process.is_wanted = False
            if loader.is_ready:
                loader.process.send({"type": "stop"})
            else:
                loader.importing = None  # which is not to blame
                loader.process.kill()

    def _message(self, loader: Loader, message: Message) -> None:
        kind = message["type"]
        if loader not in (self.current, self.candidate):
            return  # said before it knew that it was replaced
        if kind in ("born", "birth_failed"):
            self._on_answer(message)
        elif kind == "importing":
            loader.importing = message["plugin"]
            loader.import_deadline = time.monotonic() + self._load_timeout
        elif kind == "birth_way":
            if message["way"] != "clone":
                self._log("LOG", "background workers are born by forking twice", "The kernel does not allow CLONE_PARENT here.")
        elif kind == "forked":
            self._exclude(loader, message["plugin"], "importing it went on in a second process, which it had forked")
            loader.importing = None
            # The first process knows nothing of that, and goes on talking.
            loader.process.abort()
            loader.process.restart_at_once()
        elif kind == "spoiled":
            loader.exec_only[message["plugin"]] = f"it {message['how']}"
            loader.importing = None
            self._log(
                "LOG",
                f'plugin "{message["plugin"]}" {message["how"]}: its workers are executed, not cloned',
                "What it does to the process that imports it would be done to the workers of all.",
            )
            loader.process.kill()
            loader.process.restart_at_once()
        elif kind == "configuration_error":
            self._configuration_error(loader, [error_from_dict(each) for each in message["errors"]])
        elif kind == "ready":
            self._ready(loader, message)

    def _ready(self, loader: Loader, message: Message) -> None:
        loader.is_ready = True
        loader.importing = None
        loader.import_deadline = None
        loader.deaths = 0
        loader.ready = message
        # What was accepted is what every later replacement uses.
        loader.config_text = message["config_text"]
        if loader is self.candidate:
            if failure := self._newly_broken(message) or self._vet(message):
                self._drop_candidate(failure)
                return
            # Before anything is taken over: a plan is about what is in force now.
            self._answer_plans()
            if not self._is_to_take_over:
                self._drop_candidate(None)
                return
            previous, self.current, self.candidate = self.current, loader, None
            self._was_ready_once = True
            self._retire(previous)
            self._on_gone()
            self._on_ready(message, True)
            self._end_reload(None)
        else:
            is_first, self._was_ready_once = not self._was_ready_once, True
            self._on_ready(message, is_first)

    def _newly_broken(self, message: Message) -> PluginError | None:
        """Return what is wrong when a plugin that works now would be lost by taking the candidate."""
        if not self._was_ready_once:
            return None  # this is the start: what is broken is left out, and the rest run
        known = {broken["name"] for broken in self.current.ready.get("broken_plugins", ())}
        lost = [broken for broken in message["broken_plugins"] if broken["name"] not in known]
        if not lost:
            return None
        return PluginError(
            f'plugin "{lost[0]["name"]}" is broken',
            "\n".join(broken["error"] for broken in lost),
            "Everything runs on as it was. Mend the plugin, then try again.",
        )

    def _retire(self, loader: Loader) -> None:
        process = loader.process
        process.is_wanted = False
        is_idle = loader.is_ready and process.connection is not None and process.connection.is_flushed
        loader.is_ready = False
        if process.pid is not None:
            self._retiring.append(loader)
            if is_idle:
                loader.import_deadline = time.monotonic() + self._load_timeout
                process.send({"type": "stop"})
            else:
                # Requests still under way to it name descriptors that are about to be closed.
                process.abort()

    def _configuration_error(self, loader: Loader, errors: list[HostError]) -> None:
        lines = [line for error in errors for line in (error.message_primary, error.message_detail, error.message_hint) if line]
        loader.has_complained = True
        if loader is self.candidate:
            failure = ConfigurationError(
                "the configuration has errors",
                "\n".join(lines),
                "Everything runs on as it was. Mend the file, then try again.",
            )
            self._drop_candidate(failure)
        elif self._was_ready_once:
            # A plugin that was exchanged under a running host, say. What runs does not pay for it.
            if (complaint := "\n".join(lines)) != self._last_complaint:
                self._last_complaint = complaint
                self._log(
                    "ERROR",
                    "could not start another loader: the configuration that was accepted has errors now",
                    complaint,
                    "Running workers are not touched; none can be started until this is mended. Then run: bgworker reload",
                )
            loader.process.kill()
        else:
            self._on_fatal(errors)

    def _answer_plans(self) -> None:
        plans = [request for request in self._requests if request.ask is Ask.PLAN]
        self._requests = [request for request in self._requests if request.ask is not Ask.PLAN]
        for request in plans:
            request.done(None)

    def _drop_candidate(self, failure: HostError | None) -> None:
        loader, self.candidate = self.candidate, None
        if loader is not None:
            loader.process.is_wanted = False
            if loader.process.pid is not None:
                self._retiring.append(loader)
                loader.process.kill()
        self._end_reload(failure)

    def _end_reload(self, failure: HostError | None) -> None:
        if failure is not None and self._is_to_take_over:
            asked = next(request.ask for request in self._requests if request.ask is not Ask.PLAN)
            said = _refusal(asked, failure)
            self._log("ERROR", said.message_primary, said.message_detail, said.message_hint)
        requests, self._requests = self._requests, []
        for request in requests:
            request.done(None if failure is None else _refusal(request.ask, failure))
        if self._next:
            self._start_candidate(self._next)

    def _exited(self, loader: Loader, status: int | None) -> None:
        if loader in self._retiring:
            self._retiring.remove(loader)
            return
        was_ready, loader.is_ready = loader.is_ready, False
        loader.import_deadline = None
        if loader.process.is_parting:
            loader.importing = None  # said with its last breath: it was ended on purpose, and no plugin is to blame
        if loader.importing is not None and status is not None:
            self._exclude(loader, loader.importing, f"importing it ended the loader ({describe_status(status)})")
            loader.importing = None
            loader.process.restart_at_once()
        elif (
            loader.process.is_wanted
            and not loader.process.is_parting
            and not (loader.exec_only and not was_ready)
            and not loader.has_complained
        ):
            how = "could not be started" if status is None else f"ended ({describe_status(status)})"
            loader.deaths += 1
            if loader is self.candidate and loader.deaths >= _MAX_DEATHS:
                self._drop_candidate(
                    PluginError(
                        f"the loader process {how}",
                        f"It was tried {_MAX_DEATHS} times. Everything runs on as it was.",
                        "What it said on its way out is in: bgworker logs loader",
                    )
                )
            elif loader.deaths == 1:
                self._log("WARNING", f"loader process {how}; starting another", "Running workers are not touched.")
        if loader is self.current and was_ready:
            self._on_gone()

    def _exclude(self, loader: Loader, plugin: str, reason: str) -> None:
        loader.excluded[plugin] = reason
        error = PluginError(f'plugin "{plugin}" is set aside: {reason}')
        self._log(
            "ERROR",
            error.message_primary,
            "The other plugins are loaded without it.",
            "Mend or remove it, then run: bgworker reload",
        )


def _refusal(ask: Ask, cause: HostError) -> HostError:
    """Return the error for whoever asked: the same candidate may be meant to reload, and to plan."""
    return type(cause)(f"could not {ask.value}: {cause.message_primary}", cause.message_detail, cause.message_hint)


def describe_status(status: int) -> str:
    """Return how a process ended, in words."""
    code = os.waitstatus_to_exitcode(status)
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
