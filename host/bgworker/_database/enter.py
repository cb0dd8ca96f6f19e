"""The start-up child: what happens between the birth of PostgreSQL (or initdb) and its exec.

Everything is decided before the birth (``Entry``); here it is only carried out, in the
order that makes it safe: a way through closed directories while still root, then the other
user for good, then the death signal - a change of user would clear it -, then a look whether
the parent is still the one meant. Nothing is imported here: the new user may not reach the
files of this very interpreter.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from bgworker._database.identity import Identity, become
from bgworker._database.namespace import NamespaceRefused, Way, open_ways
from bgworker._process.prctl import set_pdeathsig

#: Where the descriptor for errors is kept while all above it are closed.
_ERROR_FD: Final = 3
#: What a shell exits with when it could not execute a program.
_EXIT_NOT_EXECUTED: Final = 127


@dataclass(frozen=True)
class Entry:
    """A program, and in which circumstances it starts."""

    program: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    identity: Identity
    ways: Sequence[Way]
    #: Becomes stdout and stderr.
    output_fd: int
    #: Sent to the program when its parent dies.
    death_signal: int
    #: Pid that the parent must have.
    parent: int


def enter(entry: Entry, error_fd: int) -> NoReturn:
    """Become the program. Call only in a fresh child; never returns.

    Args:
        entry: What was decided.
        error_fd: Closed by the exec; before that, gets primary, detail and hint of what went wrong, as JSON.
    """
    try:
        _enter(entry, error_fd)
    except NamespaceRefused as error:
        targets = ", ".join(f'"{way.target}" (closed at "{way.closed}")' for way in entry.ways)
        _complain(
            f'user "{entry.identity.name}" cannot reach {targets}',
            f"A mount namespace, the way around that, was refused: {error}.",
            "Put the data directory and the environment where that user can reach them.",
        )
    except OSError as error:
        _complain(f'could not execute "{entry.program}" as user "{entry.identity.name}": {error}')
    except BaseException as error:  # a child must not fall back into the program it was cloned from
        _complain(f'could not start "{entry.program}": {error!r}')
    os._exit(_EXIT_NOT_EXECUTED)


def _enter(entry: Entry, error_fd: int) -> None:
    # First the places that _complain() and the program rely on; output_fd may be the number that error_fd gets.
    os.dup2(entry.output_fd, 1)
    os.dup2(entry.output_fd, 2)
    if error_fd != _ERROR_FD:  # dup3() refuses equal numbers
        os.dup2(error_fd, _ERROR_FD)
    os.set_inheritable(_ERROR_FD, False)
    # The channel, the lifeline, the locks: none of them is PostgreSQL's.
    os.closerange(_ERROR_FD + 1, os.sysconf("SC_OPEN_MAX"))
    os.dup2(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), 0)
    os.setsid()
    # Ignored signals stay ignored across exec, and blocked ones blocked.
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(signum, signal.SIG_DFL)
        except (OSError, ValueError):
            pass  # one of the C library's own
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.chdir("/")
    os.umask(0o022)
    if entry.ways:
        open_ways(entry.ways)
    os.umask(0o077)
    become(entry.identity)
    set_pdeathsig(entry.death_signal)
    if os.getppid() != entry.parent:
        os._exit(_EXIT_NOT_EXECUTED)  # it died before the signal was armed; nobody is left to complain to
    os.execve(entry.program, [entry.program, *entry.arguments], dict(entry.environment))


def _complain(primary: str, detail: str = "", hint: str = "") -> None:
    try:
        os.write(_ERROR_FD, json.dumps([primary, detail, hint]).encode())
    except OSError:
        pass
