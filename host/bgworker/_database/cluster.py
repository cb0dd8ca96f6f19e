"""The embedded server's data directory ``pg``: what state it is in, how it comes to be, which settings it gets.

Settings come from three places, in the order in which they win:

1. The command line, for what must hold: UNIX socket only, where that socket is.
2. postgresql.conf (and ALTER SYSTEM), for whatever the user sets there.
3. bgworker.conf, written anew at each start and included at the top of postgresql.conf: what
   the host needs unless the user knows better, for example enough connections for every slot.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
from typing import Final

from bgworker._database.binaries import MAJOR
from bgworker._database.identity import Identity
from bgworker._database.places import PlaceRefused, open_directory, own_directory, read_file, replace_file
from bgworker.errors import ConfigurationError

DIRECTORY_NAME: Final = "pg"
#: A data directory in the making; it gets its real name when it is complete.
_NEW_PREFIX: Final = "pg.new."
#: The role that initdb makes, and that workers use unless they name another (C17).
SUPERUSER: Final = "postgres"
SETTINGS_NAME: Final = "bgworker.conf"
_MAIN_NAME: Final = "postgresql.conf"
_VERSION_NAME: Final = "PG_VERSION"
_CONTROL_NAME: Final = "global/pg_control"
#: What initdb writes into postgresql.conf and bgworker.conf sets as well.
_TAKEN_OVER: Final = ("max_connections", "shared_buffers")

_HEAD: Final = """\
# What bgworker needs is set in bgworker.conf, which is written anew at each start.
# Everything that is set in this file wins over it: make changes here.
include_if_exists = '{name}'

"""
_SETTINGS: Final = """\
# Written by bgworker at each start of the server. Do not edit: settings in postgresql.conf win over these.
max_connections = {max_connections}
shared_buffers = 64MB
cluster_name = 'bgworker'
log_line_prefix = '%m [%p] %q%u@%d '
"""


def inspect(path: str, identity: Identity) -> bool:
    """Return whether there is a data directory that we can run; False: it has to be made.

    Raises:
        ConfigurationError: It is of another major version, or no data directory of PostgreSQL at all.
        PlaceRefused: It is a symbolic link, or belongs to somebody else.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    # An empty one of ours is fine, whoever of us it belongs to: it is replaced. Links are refused below.
    if stat.S_ISDIR(status.st_mode) and status.st_uid not in (identity.uid, os.geteuid()):
        raise _foreign(path, status.st_uid, identity)
    fd = open_directory(path, {identity.uid, os.geteuid()})
    try:
        version = (read_file(fd, _VERSION_NAME) or b"").decode("ascii", "replace").strip()
        if not version:
            if not os.listdir(fd):
                return False
            if os.path.exists(os.path.join(path, _CONTROL_NAME)):
                # Somebody's data: nobody should be told to move that away before anything else.
                raise ConfigurationError(
                    f'cannot use "{path}": its file {_VERSION_NAME} is missing or empty',
                    "It is a PostgreSQL data directory that was damaged. It was left as it is.",
                    "Restore it from a backup, or move it away and start with an empty one.",
                )
            raise ConfigurationError(
                f'cannot use "{path}": it is not empty and no PostgreSQL data directory', "It was left as it is.", "Move it away."
            )
        _check_version(path, version)
        owner = os.fstat(fd).st_uid
    finally:
        os.close(fd)
    if owner != identity.uid:
        raise _foreign(path, owner, identity)
    return True


def _foreign(path: str, owner: int, identity: Identity) -> PlaceRefused:
    return PlaceRefused(
        f'cannot use "{path}": it belongs to uid {owner}, and PostgreSQL would run as "{identity.name}" (uid {identity.uid})',
        "It was left as it is.",
        "Run it as its owner ([database] user, if the host runs as root), or give it to that user.",
    )


def _check_version(path: str, version: str) -> None:
    if version != str(MAJOR):
        raise ConfigurationError(
            f'cannot use "{path}": it was made by PostgreSQL {version[:20]}, and this bgworker runs PostgreSQL {MAJOR}',
            "It was left as it is.",
            f"Dump it with PostgreSQL {version[:20]}'s own pg_dumpall, move it away, start, and restore the dump.",
        )


def new_directory(data_directory: str, identity: Identity) -> str:
    """Make an empty directory for initdb and return its path; left-overs of interrupted ones go away."""
    for name in os.listdir(data_directory):
        if name.startswith(_NEW_PREFIX):
            discard(os.path.join(data_directory, name))
    path = os.path.join(data_directory, _NEW_PREFIX + secrets.token_hex(4))
    own_directory(path, identity.uid, identity.gid)
    return path


def discard(path: str) -> None:
    """Remove a directory that never became a data directory; best effort, the next start tries again."""
    shutil.rmtree(path, ignore_errors=True)


def initdb_arguments(path: str) -> list[str]:
    """Return initdb's arguments. Trust is right: the socket's directory lets only its owner and root in."""
    return [
        *("-D", path, "-U", SUPERUSER, "--auth-local=trust", "--auth-host=reject"),
        # The built-in provider sorts and folds alike on every machine, whatever C library is under it.
        *("--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=builtin", "--no-instructions"),
    ]


def complete(new: str, final: str, identity: Identity) -> None:
    """Turn what initdb made into the data directory: our line in its configuration, then its name, durably."""
    fd = open_directory(new, {identity.uid})
    try:
        text = (read_file(fd, _MAIN_NAME) or b"").decode("utf-8", "replace")
        for name in _TAKEN_OVER:
            text = re.sub(rf"^(?={name}\b)", "#", text, flags=re.MULTILINE)
        replace_file(fd, _MAIN_NAME, (_HEAD.format(name=SETTINGS_NAME) + text).encode(), identity.uid, identity.gid)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(new, final)  # onto an empty directory too: that is how inspect() may have found it
    parent = os.open(os.path.dirname(final), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def write_settings(directory_fd: int, max_connections: int, identity: Identity) -> None:
    """Write bgworker.conf into an open data directory."""
    text = _SETTINGS.format(max_connections=max_connections)
    replace_file(directory_fd, SETTINGS_NAME, text.encode(), identity.uid, identity.gid)


def server_arguments(path: str, socket_directory: str) -> list[str]:
    """Return postgres' arguments."""
    # The list's own quoting (SplitDirectoriesString), although fits_socket() lets nothing through that needs it.
    quoted = '"' + socket_directory.replace('"', '""') + '"'
    settings = {"listen_addresses": "", "port": "5432", "unix_socket_directories": quoted, "unix_socket_permissions": "0700"}
    return ["-D", path, *(part for key, value in settings.items() for part in ("-c", f"{key}={value}"))]
