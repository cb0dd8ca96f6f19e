"""``run --dev``: a host as our child, and beside it this process, which watches files and has workers with new code restarted.

An ordinary client of the host: it knows from the status where each worker's library lies, and
asks for a reload, whose new loader imports the plugins anew, and for restarts. It imports no
library itself. Nothing is asked for while a file that changed has a syntax error, or while the
reload is refused: then what runs goes on with the code it has.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from bgworker import _code
from bgworker._inotify import NameWatch
from bgworker.cli import _console, _sources
from bgworker.cli._invocation import Invocation
from bgworker.cli.beside import HostProcess, connect_to, passing_on
from bgworker.errors import ConfigurationError, HostError, HostNotRunning, WaitTimeout

if TYPE_CHECKING:
    from bgworker._control.client import Client, EventStream

#: Seconds without a further change until one is acted upon: editors and git write in several steps.
QUIET: Final = 0.2
#: What never becomes quiet is acted upon after this many seconds.
_LONGEST_UNREST: Final = 2.0
#: Seconds between two tries to reach a host that has just been started; there is nothing yet to wait for.
_CONNECT_INTERVAL: Final = 0.05
#: Directories that one line names.
_MOST_NAMED: Final = 5

Slot = dict[str, Any]


def run_with_watch(invocation: Invocation, log_to: str | None) -> int:
    """Run a host as our child and watch files until it ends; return its exit code."""
    # All errors of workers.toml at once, and a system that cannot watch, before there is a host.
    invocation.configuration_and_text()
    try:
        names = NameWatch(contents=True)
    except OSError as error:
        raise HostError(
            f"cannot watch files: {error.strerror}", message_hint="Run the host without --dev, and restart workers by name."
        ) from None
    host = HostProcess(invocation, log_to or "both", is_shown=True)
    ended_read, ended_write = os.pipe()

    def await_end() -> None:
        host.wait()
        os.close(ended_write)

    waiter = threading.Thread(target=await_end, daemon=True)
    with passing_on(host.stop, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)):
        waiter.start()
        try:
            client = _connect(host, invocation, ended_read)
            if client is not None:
                with client:
                    _Watch(client, names, ended_read, invocation).run()
        except HostNotRunning:
            pass  # it has ended, or is about to
        except BaseException:
            # Nobody would watch any more, so it does not go on alone.
            host.stop()
            waiter.join()
            raise
        waiter.join()
        os.close(ended_read)
        names.close()
        return host.wait()


def _connect(host: HostProcess, invocation: Invocation, ended_fd: int) -> Client | None:
    """Connect as soon as the host answers; None if it ends before."""
    while not select.select([ended_fd], [], [], _CONNECT_INTERVAL)[0]:
        try:
            return connect_to(host, invocation)
        except HostNotRunning:
            continue
    return None


class _Watch:
    """What is watched, and what follows a change.

    Args:
        client: Of our host.
        names: Told of files.
        ended_fd: Readable when the host has ended.
        invocation: Names workers.toml.
    """

    def __init__(self, client: Client, names: NameWatch, ended_fd: int, invocation: Invocation) -> None:
        self._client, self._names, self._ended_fd = client, names, ended_fd
        self._invocation = invocation
        self._stream: EventStream = client.events()
        #: The directory of each watch.
        self._directories: dict[int, str] = {}
        #: The library's place of each worker that has told it, by name: a worker that cannot start has had one before.
        self._paths: dict[str, str] = {}
        #: Files that changed and that nothing has come of yet, since one of them is broken.
        self._pending: set[str] = set()
        self._is_all_pending = False
        self._toml: set[str] = set()

    def run(self) -> None:
        """Watch until the host has ended."""
        self._look_at_workers()
        first_at: float | None = None
        last_at = 0.0
        while True:
            act_at = None if first_at is None else min(last_at + QUIET, first_at + _LONGEST_UNREST)
            if act_at is not None and time.monotonic() >= act_at:
                first_at = None
                self._act()
                continue
            timeout = None if act_at is None else max(act_at - time.monotonic(), 0.0)
            watched: list[Any] = [self._ended_fd, self._stream, self._names]
            ready = select.select(watched, [], [], timeout)[0]
            if self._ended_fd in ready:
                return
            if self._stream in ready and self._has_new_lives():
                self._look_at_workers()
            if self._names in ready and self._take_changes():
                last_at = time.monotonic()
                first_at = last_at if first_at is None else first_at

    # -- what is watched -------------------------------------------------------------------------------------------------

    def _has_new_lives(self) -> bool:
        found = False
        try:
            while True:
                found |= self._stream.next_event(0).get("event") == "started"
        except WaitTimeout:
            return found
        except HostNotRunning:
            raise
        except HostError:
            # The host lives and has closed it: it was not read for the length of a reload, or the host is about to end.
            self._stream.close()
            self._stream = self._client.events()
            return True

    def _look_at_workers(self) -> list[Slot]:
        """Take note of where the libraries lie, watch there, and return the slots."""
        status = self._client.status()
        _code.note_old(status)
        slots: list[Slot] = status["slots"]
        for slot in slots:
            if path := ((slot["config"] or {}).get("code") or {}).get("path"):
                self._paths[slot["bgw_name"]] = path
        self._watch_directories()
        return slots

    def _watch_directories(self) -> None:
        configuration, _text = self._configuration()
        wanted = set(configuration.host.python_path) if configuration is not None else set()
        wanted |= {os.path.dirname(path) for path in self._toml}
        for path in set(self._paths.values()):
            wanted |= _sources.directories_of(path)
        new = sorted(wanted - set(self._directories.values()))
        for directory in new:
            try:
                fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                continue  # gone again, or never there
            try:
                self._directories[self._names.add(fd)] = directory
            except OSError as error:
                _console.note("WARNING", f'cannot watch directory "{directory}": {error.strerror}')
            finally:
                os.close(fd)
        if new:
            more = f" and {len(new) - _MOST_NAMED} more" if len(new) > _MOST_NAMED else ""
            _console.note("LOG", f"watching {', '.join(new[:_MOST_NAMED])}{more}")

    def _configuration(self) -> tuple[Any, str]:
        """Return the configuration, and learn which files it consists of; None while it is wrong."""
        from bgworker._config.include import split

        path = self._invocation.location().config_path or ""
        self._toml.add(path)
        try:
            configuration, text = self._invocation.configuration_and_text()
        except ConfigurationError:
            return None, ""
        self._toml = {source.path for source in split(text, path)}
        return configuration, text

    def _take_changes(self) -> bool:
        """Take note of the files that changed; return whether there were any that matter."""
        changes = self._names.changes()
        if changes is None:
            self._is_all_pending = True
            return True
        found = False
        for number, name in sorted(changes, reverse=True):  # what is said of a directory itself, without a name, comes last
            directory = self._directories.get(number)
            if directory is None:
                continue
            if not name:
                del self._directories[number]  # the kernel's last word on a directory that is gone
                continue
            path = os.path.join(directory, name)
            if name.endswith((*_sources.SUFFIXES, ".toml")) or self._is_folder_of_a_library(path):
                self._pending.add(path)
                found = True
        return found

    def _is_folder_of_a_library(self, path: str) -> bool:
        """Whether a folder has come that brings files of which nothing was told."""
        is_inside = any(path == library or path.startswith(library + os.sep) for library in self._paths.values())
        return is_inside and not os.path.basename(path).startswith((".", "__pycache__")) and os.path.isdir(path)

    # -- what follows ----------------------------------------------------------------------------------------------------

    def _act(self) -> None:
        """Reload, then restart those with new code; nothing at all while something is broken."""
        for path in sorted(self._pending):
            if problem := _sources.syntax_problem(path):
                _console.complain(
                    HostError(problem, "Nothing is restarted: the workers run on with the code they have.", "Save it once more.")
                )
                return
        is_code = self._is_all_pending or any(not path.endswith(".toml") for path in self._pending)
        if not is_code and not self._pending & self._all_toml():
            self._pending.clear()
            return
        try:
            self._client.reload()
        except HostNotRunning:
            raise
        except HostError as error:
            _console.complain(error)
            return
        changed, self._pending, self._is_all_pending = self._pending, set(), False
        self._restart(self._look_at_workers(), changed)

    def _all_toml(self) -> set[str]:
        """Return the configuration's files, those that a change has brought included."""
        before = set(self._toml)
        self._configuration()
        return before | self._toml

    def _restart(self, slots: Iterable[Slot], changed: set[str]) -> None:
        concerned = _sources.concerned(self._paths, changed)
        for slot in slots:
            name = slot["bgw_name"]
            has_new_code = _code.is_old(slot) or (name in concerned and slot["pid"] is not None)
            could_not_start = slot["state"] == "waiting_restart" and slot["reason"].startswith("failed to start")
            # A run of a schedule comes to its end, and has the new code the next time.
            if slot["origin"] == "builtin" or slot["config"].get("schedule") or not (has_new_code or could_not_start):
                continue
            why = "its code has changed" if has_new_code else "it could not start"
            _console.note("LOG", f'restarting background worker "{name}": {why}')
            try:
                self._client.restart(f"{slot['slot']}.{slot['generation']}")
            except HostNotRunning:
                raise
            except HostError as error:
                _console.complain(error)  # it has just ended
