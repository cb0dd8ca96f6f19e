"""As whom PostgreSQL runs, and what that user can reach.

PostgreSQL refuses uid 0, so a host that runs as root needs a service user for it: the one
named in ``[database] user``, else "bgworker", which is created if it does not exist. A host
that does not run as root runs PostgreSQL as itself.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from bgworker._process import reach
from bgworker._process.identity import Identity, become
from bgworker.errors import ConfigurationError, HostError

__all__ = ["DEFAULT_USER", "Identity", "become", "choose_identity", "first_closed"]

#: The service user of a host that runs as root and names none.
DEFAULT_USER: Final = "bgworker"
#: Where useradd lives; root's PATH in a service need not have it.
_SYSTEM_PATH: Final = "/usr/sbin:/sbin:/usr/bin:/bin"
_USERADD_TIMEOUT: Final = 10.0


def choose_identity(user: str | None, note: Callable[[str, str], None]) -> Identity:
    """Return as whom PostgreSQL runs.

    Args:
        user: ``[database] user``, or None.
        note: Gets message and detail of a log line if a user was created.

    Raises:
        HostError: There is no such user, it is root, or it could not be created.
    """
    if os.geteuid() != 0:
        own = _own_identity()
        if user is not None and user != own.name:
            raise ConfigurationError(
                f'PostgreSQL cannot be run as user "{user}": the host does not run as root',
                f'The host runs as user "{own.name}".',
                "Leave [database] user out, or start the host as root.",
            )
        return own
    try:
        entry = pwd.getpwnam(user or DEFAULT_USER)
    except KeyError:
        if user is not None:
            raise ConfigurationError(
                f'PostgreSQL cannot be run as user "{user}": there is no such user',
                "",
                "Create it, or name another in [database] user.",
            ) from None
        entry = _create_default_user(note)
    if entry.pw_uid == 0:
        raise ConfigurationError(
            f'PostgreSQL cannot be run as user "{entry.pw_name}": it refuses uid 0', "", "Name an ordinary user in [database] user."
        )
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Identity(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir, is_change=True)


def _own_identity() -> Identity:
    uid = os.geteuid()
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:  # a container that runs under any uid; initdb will say what it thinks of that
        return Identity(str(uid), uid, os.getegid(), tuple(os.getgroups()), "/", is_change=False)
    return Identity(entry.pw_name, uid, os.getegid(), tuple(os.getgroups()), entry.pw_dir, is_change=False)


def _create_default_user(note: Callable[[str, str], None]) -> pwd.struct_passwd:
    def refuse(detail: str) -> HostError:
        return HostError(
            f'could not create user "{DEFAULT_USER}": PostgreSQL refuses to run as root and needs a user of its own',
            detail,
            "Create that user, or name an existing one in [database] user.",
        )

    if (program := shutil.which("useradd", path=_SYSTEM_PATH)) is None:
        raise refuse("There is no program useradd on this system.")
    try:
        grp.getgrnam(DEFAULT_USER)
        group = ["--gid", DEFAULT_USER]
    except KeyError:
        group = ["--user-group"]
    shell = next((shell for shell in ("/usr/sbin/nologin", "/sbin/nologin") if os.path.exists(shell)), "/bin/false")
    arguments = [program, "--system", *group, "--no-create-home", "--home-dir", "/nonexistent", "--shell", shell, DEFAULT_USER]
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, errors="replace", timeout=_USERADD_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise refuse(f"{error}.") from None
    try:
        entry = pwd.getpwnam(DEFAULT_USER)  # whatever useradd said: another host may have been faster
    except KeyError:
        raise refuse(f"useradd exited with code {done.returncode}: {done.stderr.strip()}") from None
    if done.returncode == 0:
        note(
            f'created system user "{DEFAULT_USER}" (uid {entry.pw_uid}) to run PostgreSQL as',
            "The host runs as root, and PostgreSQL refuses to. [database] user names another one.",
        )
    return entry


def first_closed(identity: Identity, targets: Sequence[str]) -> list[str]:
    """Return, for each absolute path without symlinks, what keeps the identity from it.

    That is the topmost directory above the path that it cannot enter, or the path itself if
    it cannot be read there, or "" if nothing is in the way. A child that has become the user
    asks the kernel: modes alone do not tell, there are access control lists.

    Raises:
        OSError: The child could not become the user.
    """
    if not identity.is_change:
        return ["" for _ in targets]
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        _answer_first_closed(identity, targets, write_fd)
    os.close(write_fd)
    with open(read_fd, "rb") as pipe:
        answer = os.fsdecode(pipe.read())
    os.waitpid(pid, 0)
    verdict, *closed = answer.split("\0")
    if verdict != "ok" or len(closed) != len(targets):
        raise OSError(f'could not become user "{identity.name}": {verdict or "the child died"}')
    return closed


def _answer_first_closed(identity: Identity, targets: Sequence[str], write_fd: int) -> NoReturn:
    answer = "the child failed"
    try:
        become(identity)
        answer = "\0".join(["ok", *(reach.first_closed(target) for target in targets)])
    except OSError as error:
        answer = str(error)
    finally:
        os.write(write_fd, os.fsencode(answer))
        os._exit(0)
