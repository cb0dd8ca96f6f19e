"""Puts a newborn process into the surroundings that its worker asks for: as whom it runs, and in what.

Called in the clone, before the interpreter or program is executed and before a line of the
worker's library runs. What takes root's rights comes first, then the change of user, then
what that user is to be judged by. Whatever cannot be had is a HostError that names the key:
a worker never runs in other surroundings than it asked for. Imported by the loader alone.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Collection, Mapping
from typing import Any, Final

from bgworker._process import env_file, identity, prctl, reach
from bgworker._process.identity import Identity
from bgworker._surroundings import UNLIMITED, both_limits
from bgworker._text import printable
from bgworker.errors import HostError

#: Modules of ours and of others that every worker imports; where one is, its neighbours are.
_NEEDED: Final = ("os", "bgworker", "setproctitle")


def enter(wanted: Mapping[str, Any], host_pid: int, secrets: Collection[str] = ()) -> None:
    """Change this process, or raise what it is that cannot be changed.

    Args:
        wanted: Keys of the registration and their values; only those that are set.
        host_pid: Whose end is this process's end.
        secrets: Environment variables that another user than the host's does not get.

    Raises:
        HostError: The worker has failed to start.
    """
    for name, limit in wanted.get("rlimits", {}).items():
        _limit(name, limit)
    if "nice" in wanted:
        _set_priority(wanted["nice"])
    if "user" in wanted or "group" in wanted:
        _change_identity(identity.find_identity(wanted.get("user"), wanted.get("group")), host_pid, secrets)
    if "umask" in wanted:
        os.umask(int(wanted["umask"], 8))
    if "working_directory" in wanted:
        _enter_directory(wanted["working_directory"])
    if "env_file" in wanted:
        os.environ |= env_file.read(wanted["env_file"])
    os.environ |= wanted.get("environment", {})


def _limit(name: str, limit: Any) -> None:
    number = getattr(resource, f"RLIMIT_{name.upper()}", None)
    if number is None:
        raise HostError(f"could not set rlimits {name}: this system has no such limit")
    soft, hard = (resource.RLIM_INFINITY if each == UNLIMITED else each for each in both_limits(limit))
    try:
        resource.setrlimit(number, (soft, hard))
    except (OSError, ValueError) as error:
        own = resource.getrlimit(number)[1]
        raise HostError(
            f"could not set rlimits {name}: {error}",
            f"The host's own hard limit is {UNLIMITED if own == resource.RLIM_INFINITY else own}; only root can raise it.",
            "Ask for less, or raise the limit where the host is started, such as LimitNOFILE= of a systemd unit.",
        ) from None


def _set_priority(nice: int) -> None:
    try:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    except OSError as error:
        raise HostError(
            f"could not set nice to {nice}: {error.strerror}",
            f"The host's own is {os.getpriority(os.PRIO_PROCESS, 0)}; only root can have a lower one, which is more favoured.",
        ) from None


def _enter_directory(path: str) -> None:
    try:
        os.chdir(path)
    except OSError as error:
        raise HostError(
            f'could not enter working_directory "{printable(path)}": {error.strerror}',
            "It is entered as the user that the worker runs as.",
        ) from None


def _change_identity(target: Identity, host_pid: int, secrets: Collection[str]) -> None:
    if not target.is_change:
        return
    try:
        # Else the programs that open /dev/stdout or /dev/stderr could not: the pipes are of whoever made them.
        for fd in (1, 2):
            os.fchown(fd, target.uid, target.gid)
        identity.become(target)
        prctl.set_no_new_privs()
        # Until it executes something, this is a copy of the loader, and that user's processes are not to read it.
        prctl.set_dumpable(False)
    except OSError as error:
        raise HostError(
            f'could not become user "{printable(target.name)}": {error.strerror or error}',
            "The host runs as root, and may not change to another user all the same.",
            "Give the host the capabilities CAP_CHOWN, CAP_SETUID and CAP_SETGID, or leave user and group out.",
        ) from None
    # The change has cleared it, and a host that died in between sends nothing.
    prctl.set_pdeathsig(signal.SIGKILL)
    if os.getppid() != host_pid:
        os._exit(0)
    for name in secrets:
        os.environ.pop(name, None)
    os.environ |= {"HOME": target.home, "USER": target.name, "LOGNAME": target.name}


def check_interpreter(user: str | None) -> None:
    """See that this process can execute our interpreter and that it will find there what a worker imports.

    Raises:
        HostError: What is closed to the user.
    """
    paths = [os.path.dirname(sys.executable), os.path.realpath(sys.executable)]
    paths += [os.path.realpath(file) for name in _NEEDED if (file := getattr(sys.modules.get(name), "__file__", None))]
    for path in paths:
        if closed := reach.first_closed(path):
            raise HostError(
                f'user "{printable(str(user))}" cannot reach the interpreter: "{printable(closed)}" is closed to it',
                f'A worker with a user of its own executes "{printable(sys.executable)}", and needs "{printable(path)}".',
                "Install Python and bgworker where that user may read them, such as below /opt; not in a home of mode 0700.",
            )
