"""As whom a process runs: users and groups looked up, and a change to them that cannot be undone.

Who looks up asks the system's databases, which can wait for a network: the host does so
before its loop only, else processes do that are being born. Used by the loader for workers
with ``user`` or ``group``, by the database process for PostgreSQL, and by the host for what
it may promise.
"""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass
from typing import Final, NamedTuple

from bgworker._text import printable
from bgworker.errors import HostError

#: An argument of setresuid(2) that leaves an id as it is; no user can have it as theirs.
_NO_ID: Final = 0xFFFF_FFFF


@dataclass(frozen=True)
class Identity:
    """A user, and whether becoming it is a change."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    #: False: the process runs as this user already.
    is_change: bool


class Refusal(NamedTuple):
    """Why a registration cannot have its user or group: the end of a primary, detail and hint."""

    reason: str
    detail: str
    hint: str


@dataclass(frozen=True)
class OwnIdentity:
    """The host's own user, as registrations may name it."""

    uid: int
    users: frozenset[str]
    groups: frozenset[str]

    @classmethod
    def of_this_process(cls) -> OwnIdentity:
        """Look up who this process is."""
        uid, gid = os.geteuid(), os.getegid()
        users, groups = {str(uid)}, {str(gid)}
        try:
            users.add(pwd.getpwuid(uid).pw_name)
        except KeyError:
            pass  # a container that runs under any uid
        try:
            groups.add(grp.getgrgid(gid).gr_name)
        except KeyError:
            pass
        return cls(uid, frozenset(users), frozenset(groups))

    def is_user(self, user: str | None) -> bool:
        """Whether a worker with this ``user`` runs as the host does."""
        return user is None or user in self.users

    def refusal(self, user: str | None, group: str | None) -> Refusal | None:
        """Return why a worker cannot run as this user and group; None if the host has the right to change to them."""
        if self.uid == 0:
            return None
        for key, value, own in (("user", user, self.users), ("group", group, self.groups)):
            if value is not None and value not in own:
                name = next((name for name in sorted(own) if not name.isdigit()), str(self.uid))
                return Refusal(
                    f'it cannot run as {key} "{printable(value)}": the host does not run as root',
                    f'The host runs as {key} "{name}", and only root can change to another.',
                    f"Start the host as root, or leave {key} out.",
                )
        return None


def find_identity(user: str | None, group: str | None) -> Identity:
    """Look up as whom a worker is to run.

    Args:
        user: Name or number; None for this process's own.
        group: Name or number; None for the user's own.

    Raises:
        HostError: There is no such user or group.
    """
    uid, entry = _find_user(user)
    if group is not None:
        gid = _find_group(group)
    elif entry is not None and user is not None:
        gid = entry.pw_gid
    elif user is None:
        gid = os.getegid()
    else:
        raise HostError(
            f'user "{printable(user)}" has no group: there is no such user in the database of users',
            "A user that is only a number has no group of its own.",
            "Set group as well.",
        )
    name = entry.pw_name if entry is not None else str(uid)
    is_change = (uid, gid) != (os.geteuid(), os.getegid())
    groups = tuple(os.getgrouplist(name, gid)) if entry is not None else (gid,)
    return Identity(name, uid, gid, groups, entry.pw_dir if entry is not None else "/", is_change)


def _find_user(user: str | None) -> tuple[int, pwd.struct_passwd | None]:
    if user is not None and not _is_number(user):
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            raise HostError(
                f'user "{printable(user)}" does not exist', "This system has no user of that name.", "Create it first."
            ) from None
        return entry.pw_uid, entry
    uid = os.geteuid() if user is None else int(user)
    try:
        return uid, pwd.getpwuid(uid)
    except KeyError:
        return uid, None


def _find_group(group: str) -> int:
    if _is_number(group):
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise HostError(
            f'group "{printable(group)}" does not exist', "This system has no group of that name.", "Create it first."
        ) from None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < _NO_ID


def become(identity: Identity) -> None:
    """Change this process to the identity for good. Call only in a child, right before exec.

    A change of user clears the death signal (PR_SET_PDEATHSIG): ask for it again.

    Raises:
        OSError: A change was refused, did not happen, or could be undone.
    """
    if not identity.is_change:
        return
    os.setgroups(identity.groups)
    if hasattr(os, "setresuid"):
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
        is_done = os.getresuid() == (identity.uid,) * 3 and os.getresgid() == (identity.gid,) * 3
    else:
        os.setgid(identity.gid)
        os.setuid(identity.uid)
        is_done = (os.getuid(), os.getgid()) == (identity.uid, identity.gid)
    if not is_done or not set(os.getgroups()) <= {*identity.groups, identity.gid}:
        raise OSError("the change of user did not happen")
    if identity.uid != 0:  # root can undo everything; as root only the group is changed
        _prove_irrevocable(identity)


def _prove_irrevocable(identity: Identity) -> None:
    # Kept capabilities (securebits) would let a process that looks harmless return to root.
    for way_back in (os.setuid, os.seteuid, os.setgid):
        try:
            way_back(0)
        except PermissionError:
            continue
        if way_back is os.setgid and identity.gid == 0:
            continue  # its own group is root's: nothing was regained
        raise OSError("the change of user could be undone")
    try:
        os.setgroups([0])
    except PermissionError:
        return
    raise OSError("the change of groups could be undone")
