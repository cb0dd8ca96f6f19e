"""A host as our child, and the live view beside it: for ``run --tui`` and ``demo``.

The host never shares a process with a view. It runs in a session of its own, so that Ctrl-C
reaches this process alone, which passes it on as SIGTERM. It is tied to us by the kernel
(``run --tied``): when this process dies, of whatever, the host gets SIGTERM, a fast stop.
What the host prints before it can be asked for its status ends up in a pipe here and is shown
when it ends badly.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Final

from bgworker.cli import _console
from bgworker.cli._invocation import Invocation
from bgworker.cli.status import build_view, make_console
from bgworker.errors import HostError, HostNotRunning

if TYPE_CHECKING:
    from bgworker._control.client import Client

#: Lines of the host's own output that are kept.
_LINES_KEPT: Final = 200


class HostProcess:
    """A host that runs as our child.

    Args:
        invocation: Names workers.toml and the data directory.
        log_to: ``--log`` of the child.
        is_shown: Whether it prints to our own standard output and error; else its lines are kept.
    """

    def __init__(self, invocation: Invocation, log_to: str | None, *, is_shown: bool) -> None:
        location = invocation.location()
        # -P: what happens to lie in the current directory must not be imported in the place of a library.
        command = [sys.executable, "-P", "-m", "bgworker", "run", "--tied", str(os.getpid()), "-D", location.data_directory]
        command += ["-c", location.config_path] if location.config_path is not None else []
        command += ["--log", log_to] if log_to is not None else []
        output = None if is_shown else subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT if output else None, start_new_session=True
        )
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._reader: threading.Thread | None = None
        if self._process.stdout is not None:
            self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
            self._reader.start()

    def _read(self, pipe: IO[bytes]) -> None:
        for line in pipe:
            self._lines.append(line.decode("utf-8", "replace").rstrip("\n"))

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def stop(self) -> None:
        """Ask for a fast stop; a second time for an immediate one. Safe in a signal handler."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Wait for the end and return the exit code as a shell has it."""
        code = self._process.wait()
        if self._reader is not None:
            # Strays may hold the pipe open; what the host itself said is there by now.
            self._reader.join(timeout=1.0)
        return code if code >= 0 else 128 - code

    def how_it_ended(self) -> str:
        """Return the end in words; empty while it runs and after a stop that went well."""
        code = self._process.poll()
        if code is None or code == 0:
            return ""
        if code > 0:
            return f"it exited with exit code {code}"
        return f"it was terminated by signal {-code}: {signal.strsignal(-code)}"

    def lines(self) -> list[str]:
        """Return what it printed last."""
        return list(self._lines)


@contextmanager
def passing_on(stop: Callable[[], None], signals: Sequence[signal.Signals]) -> Iterator[None]:
    """Turn these signals into a stop of the child while the block runs."""
    before = {signum: signal.signal(signum, lambda *_: stop()) for signum in signals}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def run_with_lines(invocation: Invocation, log_to: str | None) -> int:
    """Run a host as our child, its log lines on our standard error; for where there is no terminal."""
    host = HostProcess(invocation, log_to, is_shown=True)
    with passing_on(host.stop, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)):
        return host.wait()


def run_with_view(invocation: Invocation, log_to: str | None, notes: Sequence[str] = ()) -> int:
    """Run a host as our child with the live view, until it ends; return its exit code.

    Args:
        invocation: Names workers.toml and the data directory.
        log_to: ``--log`` of the child.
        notes: Lines to stand below the table.
    """
    from bgworker.tui.feed import Inbox, Message
    from bgworker.tui.keyboard import quiet_keyboard
    from bgworker.tui.live import LiveView, full_screen

    console = make_console()
    inbox: Inbox = queue.SimpleQueue()
    host = HostProcess(invocation, log_to, is_shown=False)
    build = partial(build_view, names=(), only_trouble=False, fold=True, show_finished=False)
    view = LiveView(console, partial(connect_to, host, invocation), build, inbox, host.how_it_ended, notes)
    ended = threading.Thread(target=lambda: inbox.put(Message("leave", host.wait())), daemon=True)
    ended.start()
    with passing_on(host.stop, (signal.SIGINT, signal.SIGTERM)):
        signal.signal(signal.SIGWINCH, lambda *_: inbox.put(Message("draw")))
        try:
            with quiet_keyboard(sys.stdin.fileno(), lambda key: host.stop() if key in "qQ" else None):
                code = view.run(full_screen(console))
        except BaseException:
            # The view failed: nobody would see the host any more, so it does not go on alone.
            host.stop()
            ended.join()
            raise
    if code != 0:
        _explain(host, view.last_picture(), console)
    return code


def run_with_top(invocation: Invocation, log_to: str | None) -> int:
    """Run a host as our child with the full-screen view of ``top``, until it ends; return its exit code."""
    from bgworker.cli.top import explain
    from bgworker.top.app import Top
    from bgworker.top.doors import Doors
    from bgworker.top.feed import Pictures
    from bgworker.tui.render import render

    host = HostProcess(invocation, log_to, is_shown=False)
    connect = partial(connect_to, host, invocation)
    pictures = Pictures(connect, host.how_it_ended)
    application = Top(Doors(pictures, connect, invocation.location().data_directory, partial(explain, invocation), host))
    with passing_on(host.stop, (signal.SIGINT, signal.SIGTERM)):
        try:
            code = application.run()
        finally:
            if host.how_it_ended() == "":
                # Either it has ended well, or the view has failed: nobody would see the host any more, so it does not go on alone.
                host.stop()
            ended = host.wait()
    if code is None or ended != 0:
        view = None if application.picture is None else application.picture.view
        console = make_console()
        gone = f"host (PID {host.pid}) is gone: {host.how_it_ended()}"
        _explain(host, None if view is None else render(view, console.width, gone=gone), console)
    return ended


def connect_to(host: HostProcess, invocation: Invocation) -> Client:
    """Connect to our own child, and never to another host that holds the directory."""
    client = invocation.connect()
    if client.host_pid != host.pid:
        client.close()
        raise HostNotRunning(f"the host that answers is process {client.host_pid}, not our own")
    return client


def _explain(host: HostProcess, picture: Any, console: Any) -> None:
    """Print on the normal screen what the other one took away with it."""
    if picture is not None:
        console.print(picture)
    _console.flush()
    lines = host.lines()
    for line in lines:
        sys.stderr.write(_console.inert(line) + "\n")
    if not any(line.startswith("ERROR:") for line in lines):
        _console.complain(HostError(f"the host ended at {time.strftime('%H:%M:%S')}: {host.how_it_ended()}"))
