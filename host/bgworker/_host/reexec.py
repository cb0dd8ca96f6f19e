"""The host executes itself anew: the program of now in the place of the one that was started, in the same process.

In this order, of which only the last step is blind; until then everything is served, and whatever
fails leaves the host as it was:

1. *Rehearsal.* A child executes the new program with the state of this moment and the very
   descriptors. It imports everything, builds a whole host of it, says so and ends.
2. *A quiet moment.* No database is open for a worker's login, no loader is on its way out.
3. *The helpers part.* Loader, database process and collector end; the new host starts its own,
   as after a death of theirs. What the collector had not written it hands over.
4. *Execution.* Signals are blocked, the state goes into a memory file, execve(2).

What is carried says ``document``; the other side of the execution is ``resume``. Imported by the
composition root alone.
"""

from __future__ import annotations

import enum
import fcntl
import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from bgworker._baggage import Baggage
from bgworker._core.reasons import count
from bgworker._host import document
from bgworker._host.callers import Caller
from bgworker._host.loaders import describe_status
from bgworker._process import injection, own_signals, reap
from bgworker._process.spawn import inherited_environment
from bgworker._spec import printable
from bgworker._version import __version__
from bgworker.errors import HostError

if TYPE_CHECKING:
    from bgworker._host.host import Host

#: The other side, as a program.
MODULE: Final = "bgworker._host.resume"
#: How long the rehearsal may take, in seconds: a start of the interpreter and every import, on a machine that is busy.
REHEARSAL_TIMEOUT: Final = 30.0
#: How long a quiet moment is waited for, and then how long the helpers get to end, in seconds.
_QUIET_TIMEOUT: Final = 10.0
_PARTING_TIMEOUT: Final = 5.0
#: What is kept of what the rehearsal prints, in bytes.
_MOST_OUTPUT: Final = 65_536
_STOPS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
#: Mistakes of ours in a room's part of the state: they cost this execution, not the host.
_CONTRADICTIONS: Final = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_UNCHANGED: Final = "Everything runs on as it was."


class _UnwrittenError(Exception):
    """The state could not be gathered or written."""


class _Stage(enum.Enum):
    IDLE = enum.auto()
    REHEARSING = enum.auto()
    WAITING = enum.auto()
    PARTING = enum.auto()


class Reexec:
    """One execution at a time: who has asked for it, and how far it is.

    Args:
        host: Which is to go on in another program.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._stage = _Stage.IDLE
        #: When the stage is given up.
        self._deadline = 0.0
        #: The helpers have been killed, since they did not end by themselves.
        self._is_insisting = False
        #: Who is answered: caller and request. A signal asks without being answered.
        self._asked: list[tuple[Caller, Any]] = []
        #: Signals that the next host takes, or this one once it stays.
        self._put_off: set[int] = set()
        #: A signal has asked for it while a loader was read; it follows when that is over.
        self._is_due = False
        #: The rehearsal, its output, and what has come of it.
        self._pid: int | None = None
        self._output_fd = -1
        self._output = b""
        #: Rehearsals that were killed and have not been reaped: their ends are nobody else's, also if another has begun meanwhile.
        self._given_up: set[int] = set()

    @property
    def pids(self) -> frozenset[int]:
        """Every rehearsal that has not been reaped."""
        return frozenset(self._given_up if self._pid is None else {*self._given_up, self._pid})

    @property
    def is_running(self) -> bool:
        """Whether the host is on its way to execute itself anew."""
        return self._stage is not _Stage.IDLE

    def begin(self, caller: Caller | None = None, request_id: Any = None) -> None:
        """Begin, or join what has begun; whoever asks is answered by the next host, or by this one with what is wrong.

        Raises:
            HostError: Not now, with the reason.
        """
        if (refusal := self._refusal()) is not None:
            raise refusal
        if caller is not None:
            self._asked.append((caller, request_id))
        if self.is_running:
            return
        self._host.log("LOG", "received a request to execute the host anew, rehearsing it")
        try:
            self._rehearse()
        except _UnwrittenError as error:
            self._fail(str(error))
        except (OSError, MemoryError) as error:
            self._fail(f"its rehearsal could not be started: {_what_failed(error)}")

    def begin_by_signal(self) -> None:
        """Begin, or have it follow what a loader is read for; nobody is answered, and the log says how it goes."""
        host = self._host
        if host.loaders.candidate is not None and host.machine.shutdown is None:
            if not self._is_due:
                host.log("LOG", "received SIGUSR2, executing the host anew after the reload, plan or upgrade that is going on")
            self._is_due = True
            return
        try:
            self.begin()
        except HostError as error:
            host.log("ERROR", error.message_primary, error.message_detail, error.message_hint)

    def put_off(self, signum: int) -> None:
        """Have a signal taken when this is over."""
        self._put_off.add(signum)

    def cancel(self, reason: str) -> None:
        """Give up, if it is on its way."""
        if self.is_running:
            self._fail(reason)

    def next_deadline(self) -> float | None:
        """Return when ``tick`` has something to do at the latest."""
        return self._deadline if self.is_running else None

    def tick(self, now: float) -> None:
        """Go on as far as it goes; called at the end of each turn, when nothing is half done. Does not return if all is ready."""
        if self._is_due and self._host.loaders.candidate is None:
            self._is_due = False
            self.begin_by_signal()
        if self._stage is _Stage.REHEARSING and now >= self._deadline:
            self._read(0)
            self._fail(f"its rehearsal did not end within {REHEARSAL_TIMEOUT:g} seconds", _lines(self._text())[-2000:])
        if self._stage is _Stage.WAITING:
            busy = self._what_is_busy()
            if not busy:
                self._part(now)
            elif now >= self._deadline:
                self._fail(busy)
        if self._stage is _Stage.PARTING:
            self._see_off(now)

    def rehearsed(self, pid: int, status: int) -> None:
        """Take the end of a rehearsal, which has been reaped."""
        if pid in self._given_up:
            self._given_up.discard(pid)
            return
        self._pid = None
        self._read(0)
        self._drop_output()
        text = self._text()
        last = text.rpartition("\n")[2]
        try:
            said = json.loads(last)
        except ValueError:
            said = None
        if status == 0 and isinstance(said, dict) and "version" in said:
            self._host.log("LOG", f"the rehearsal went well; executing bgworker {printable(str(said['version']))[:100]}")
            self._stage, self._deadline = _Stage.WAITING, time.monotonic() + _QUIET_TIMEOUT
        elif isinstance(said, dict) and "error" in said:
            self._fail(f"its rehearsal failed: {printable(str(said['error']))[:300]}", _lines(str(said.get("detail", "")))[-2000:])
        else:
            self._fail(f"its rehearsal failed: {printable(last)[:300] or describe_status(status)}", _lines(text)[-2000:])

    def _text(self) -> str:
        return self._output.decode("utf-8", "replace").strip()

    # -- the stages ------------------------------------------------------------------

    def _refusal(self) -> HostError | None:
        host = self._host
        if host.machine.shutdown is not None:
            reason = "it is shutting down"
        elif not host.is_loaded:
            reason = "it is still starting"
        elif host.loaders.candidate is not None:
            reason = "a reload, a plan or an upgrade is going on"
        elif not hasattr(os, "memfd_create"):
            reason = "this system has no memfd_create(2)"
        else:
            return None
        return HostError(f"could not execute the host anew: {reason}", _UNCHANGED)

    def _rehearse(self) -> None:
        baggage = Baggage()
        state_fd = self._write_state({}, baggage)
        try:
            read_fd, write_fd = os.pipe()
            try:
                with _inheritable({*baggage.packed, state_fd}):
                    self._pid = _spawn_rehearsal(state_fd, write_fd)
            except BaseException:
                os.close(read_fd)
                raise
            finally:
                os.close(write_fd)
        finally:
            os.close(state_fd)
        os.set_blocking(read_fd, False)
        self._output_fd, self._output = read_fd, b""
        self._host.loop.add(read_fd, selectors.EVENT_READ, self._read)
        self._stage, self._deadline = _Stage.REHEARSING, time.monotonic() + REHEARSAL_TIMEOUT

    def _write_state(self, about: dict[str, Any], baggage: Baggage) -> int:
        """Return a memory file with the state of this moment.

        Raises:
            _UnwrittenError: The reason, in words; the host is as it was.
        """
        try:
            return write_state({**document.carry(self._host, baggage), "reexec": about}, baggage)
        except (OSError, MemoryError) as error:
            reason = _what_failed(error)
        except _CONTRADICTIONS as error:
            reason = repr(error)
        raise _UnwrittenError(f"its state could not be written: {reason}")

    def _read(self, _events: int) -> None:
        try:
            data = os.read(self._output_fd, _MOST_OUTPUT)
        except BlockingIOError:
            return
        if data:
            self._output = (self._output + data)[-_MOST_OUTPUT:]
        elif self._output_fd in self._host.loop:
            self._host.loop.remove(self._output_fd)  # its exit follows

    def _drop_output(self) -> None:
        if self._output_fd in self._host.loop:
            self._host.loop.remove(self._output_fd)
        os.close(self._output_fd)
        self._output_fd = -1

    def _what_is_busy(self) -> str:
        if self._host.loaders.is_busy:
            return "a loader is still on its way out"
        if self._host.database is not None and self._host.database.openings.has_open:
            return "a database is open for a worker's login"
        if self._given_up:
            return f"a rehearsal that was given up (PID {min(self._given_up)}) has not ended yet"
        return ""

    def _part(self, now: float) -> None:
        """Have the helpers end; what they leave undone the next ones are asked for."""
        host = self._host
        self._stage, self._deadline, self._is_insisting = _Stage.PARTING, now + _PARTING_TIMEOUT, False
        host.service.reloading()
        host.loaders.hold(True)
        host.births.spares.want(0)
        if host.database is not None:
            host.database.process.hold(True)
            host.database.process.kill()
        host.output.hand_over()

    def _see_off(self, now: float) -> None:
        left = [helper for helper in self._host.children.helpers() if helper.pid is not None]
        if not left:
            self._execute()
        elif now >= self._deadline and self._is_insisting:
            self._fail(f"{left[0].name} (PID {left[0].pid}) does not end")
        elif now >= self._deadline:
            self._deadline, self._is_insisting = now + _PARTING_TIMEOUT, True
            for helper in left:
                helper.kill()

    def _execute(self) -> None:
        """Go on in the new program; comes back only if that cannot be executed, or if a stop came before."""
        host = self._host
        mask = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        try:
            if host.loop.pending & _STOPS:
                return  # the next turn begins the shutdown, which gives this up
            since = time.monotonic()
            baggage = Baggage()
            about = {
                "since": since,
                "version": __version__,
                "mask": sorted(mask),
                "signals": sorted({*host.loop.pending, *self._put_off}),
                "asked": [
                    [document.name_of(caller), request_id] for caller, request_id in self._asked if caller.connection.is_open
                ],
            }
            state_fd = self._write_state(about, baggage)
            try:
                with _inheritable({*baggage.packed, state_fd}):
                    injection.point("host.execute")
                    os.execve(sys.executable, _arguments("--resume", state_fd), os.environ)
            finally:
                os.close(state_fd)
        except _UnwrittenError as error:
            self._fail(str(error))
        except (OSError, MemoryError) as error:
            self._fail(f'could not execute "{printable(sys.executable)}": {_what_failed(error)}')
        finally:
            own_signals.set_mask(mask)

    def _fail(self, reason: str, detail: str = "") -> None:
        """Stay as it was: the helpers come back, and whoever asked is told."""
        host, was = self._host, self._stage
        self._stage = _Stage.IDLE
        if self._pid is not None:
            reap.signal_child(self._pid, signal.SIGKILL)
            self._given_up.add(self._pid)
            self._pid = None
        if self._output_fd >= 0:
            self._drop_output()
        error = HostError(
            f"could not execute the host anew: {reason}",
            f"{detail}\n{_UNCHANGED}" if detail else _UNCHANGED,
            "Install what works, then run: bgworker reexec",
        )
        # While the collector is held: one that is on its way out would not write it any more, and the next one does.
        host.log("ERROR", error.message_primary, error.message_detail, error.message_hint)
        if was is _Stage.PARTING:
            self._take_helpers_back()
        asked, self._asked = self._asked, []
        for caller, request_id in asked:
            caller.refuse(request_id, error)
        put_off, self._put_off = self._put_off, set()
        host.loop.note(put_off)

    def _take_helpers_back(self) -> None:
        host = self._host
        host.loaders.hold(False)
        if host.database is not None:
            host.database.process.hold(False)
        host.output.collector.hold(False)
        if host.machine.shutdown is None:
            host.service.ready()

    # -- the other side ---------------------------------------------------------------

    def went_well(self, said: dict[str, Any], callers: dict[str, Caller]) -> None:
        """Tell everybody, in the host that goes on, that it does."""
        host = self._host
        blind = round((time.monotonic() - float(said["since"])) * 1000.0, 1)
        result = {
            "pid": os.getpid(),
            "old_version": said["version"],
            "version": __version__,
            "blind_ms": blind,
            "workers": len(host.births.by_pid),
            "clients": len(host.server.peers),
            "waits": len(host.waits.all()),
        }
        host.log(
            "LOG",
            f"executed the host anew (PID {os.getpid()}): bgworker {said['version']} went on as {__version__}",
            f"It was blind for {blind:g} ms. It carried {count(len(host.births.by_pid), 'worker')},"
            f" {count(len(host.server.peers), 'client')} and {count(len(host.waits.all()), 'wait')}.",
        )
        host.service.ready()
        for name, request_id in said["asked"]:
            callers[name].reply(request_id, result)


def write_state(state: document.Document, baggage: Baggage) -> int:
    """Return a memory file with the state and the numbers of its descriptors, sealed: what was written is what will be read.

    Raises:
        OSError, MemoryError: There is no descriptor or memory left.
    """
    fd = os.memfd_create("bgworker-state", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(json.dumps({**state, "descriptors": sorted(baggage.packed)}, separators=(",", ":")).encode())
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:  # no memory for the text of it, too: whoever asked is refused, and the descriptor must not stay
        os.close(fd)
        raise
    return fd


def _what_failed(error: OSError | MemoryError) -> str:
    """Return why the system did not do it."""
    return "there is no memory left" if isinstance(error, MemoryError) else error.strerror or str(error)


def _spawn_rehearsal(state_fd: int, output_fd: int) -> int:
    """Execute the other side as a rehearsal; return its pid."""
    return os.posix_spawn(
        sys.executable,
        [*_arguments("--rehearse", state_fd), str(os.getpid())],
        inherited_environment(),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, output_fd, 1),
            (os.POSIX_SPAWN_DUP2, output_fd, 2),
        ],
        setsigmask=(),
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
    )


def _lines(text: str) -> str:
    """Return a text of another process, such as a traceback, line by line and harmless to a terminal."""
    return "\n".join(map(printable, text.splitlines()))


def _arguments(what: str, state_fd: int) -> list[str]:
    # -P: as for every program of ours, a module in the current directory must not shadow one.
    return [sys.executable, "-P", "-m", MODULE, what, str(state_fd)]


@contextmanager
def _inheritable(fds: Iterable[int]) -> Iterator[None]:
    made: list[int] = []
    try:
        for fd in fds:
            os.set_inheritable(fd, True)
            made.append(fd)
        yield
    finally:
        for fd in made:
            os.set_inheritable(fd, False)
