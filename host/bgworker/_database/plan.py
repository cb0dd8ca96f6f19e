"""What a start of the embedded server needs, found out anew before each one: users, permissions and files change."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bgworker._database import cluster, identity, places
from bgworker._database.binaries import Binaries, find_binaries
from bgworker._database.identity import Identity, choose_identity
from bgworker._database.namespace import Way
from bgworker.errors import HostError

_RUN_DIRECTORY: Final = "run"
_SOCKET_DIRECTORY: Final = "pg"
#: Taken over from our environment; the rest of it is nobody's business in a server, PG* variables least of all.
_ENVIRONMENT: Final = ("PATH", "TZ", "TMPDIR")


@dataclass(frozen=True)
class EmbeddedSettings:
    """What the host says about the embedded server."""

    data_directory: str
    #: Database that is made if it is missing.
    name: str
    #: Service user, or None.
    user: str | None
    max_connections: int


@dataclass(frozen=True)
class Plan:
    """As whom, from where, and into which directories."""

    binaries: Binaries
    identity: Identity
    pg_directory: str
    socket_directory: str
    #: The data directory has to be made first.
    is_new: bool

    def ways(self, directory: str) -> list[Way]:
        """Return what must be opened for the user to reach the programs and this directory.

        Raises:
            HostError: Something cannot be read for a reason that a way to it does not change.
        """
        targets = [*self.binaries.trees, directory]
        ways = [Way(target, closed) for target, closed in zip(targets, first_closed(self.identity, targets), strict=True) if closed]
        for way in ways:
            if way.closed == way.target:
                raise HostError(
                    f'user "{self.identity.name}" cannot read "{way.target}"',
                    "PostgreSQL would run as that user and needs it.",
                    "Let that user read it, or name its owner in [database] user.",
                )
        return ways

    def environment(self) -> dict[str, str]:
        """Return the environment of PostgreSQL's programs."""
        taken = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        own = {"LANG": "C.UTF-8", "HOME": self.identity.home, "USER": self.identity.name, "LOGNAME": self.identity.name}
        return {"PATH": os.defpath, **taken, **own}


def prepare(settings: EmbeddedSettings, note: Callable[[str, str], None]) -> Plan:
    """Find out what a start needs, and make the directories around the server's own.

    Args:
        settings: What the host says.
        note: Gets message and detail of a log line.

    Raises:
        HostError: It cannot be started as things are.
        OSError: A directory could not be made or looked at.
    """
    binaries = find_binaries()
    user = choose_identity(settings.user, note)
    data_directory = os.path.realpath(settings.data_directory)
    pg_directory = os.path.join(data_directory, cluster.DIRECTORY_NAME)
    is_new = not cluster.inspect(pg_directory, user)
    return Plan(binaries, user, pg_directory, socket_directory(data_directory, user), is_new)


def socket_directory(data_directory: str, user: Identity) -> str:
    """Make the directory of the server's socket and return its path: in the data directory if that will do."""
    run = os.path.join(data_directory, _RUN_DIRECTORY)
    preferred = os.path.join(run, _SOCKET_DIRECTORY)
    if places.fits_socket(preferred):
        if not os.path.isdir(run):
            places.own_directory(run, os.geteuid(), os.getegid())
        if not any(first_closed(user, [run])):
            places.own_directory(preferred, user.uid, user.gid)
            return preferred
    short = places.short_directory(data_directory)
    places.own_directory(short, user.uid, user.gid)
    return short


def first_closed(user: Identity, targets: list[str]) -> list[str]:
    """Return what keeps the user from each target, as ``identity.first_closed``.

    Raises:
        HostError: The user could not be tried.
    """
    try:
        return identity.first_closed(user, targets)
    except OSError as error:
        raise HostError(
            f'PostgreSQL cannot be run as user "{user.name}": {error}',
            "The host runs as root but may not change to that user.",
            "Give the host the capabilities CAP_SETUID and CAP_SETGID, or start it as an ordinary user.",
        ) from None
