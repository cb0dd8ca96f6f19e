"""Who may ask what: the right that each method needs, and who has which rights.

The host's user and root may do everything. Members of ``[host] control_group`` have the
rights of ``control_allow``, and every right over what they registered themselves. So have
workers, on their channels: they may look at everything and register more, and stop or
restart nobody but themselves and what they have registered (CVE-2023-5870 was a server that
did not ask). A method that is not in the table is refused.
"""

from __future__ import annotations

import enum
import grp
import pwd
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from bgworker._process.identity import OwnIdentity
from bgworker._spec import BackgroundWorker, printable
from bgworker._supervision import STOP_SIGNALS
from bgworker._surroundings import IMPOSED
from bgworker.errors import ConfigurationError, PermissionDenied, RegistrationError

if TYPE_CHECKING:
    from bgworker._host.callers import Caller

#: Registrations that a connection is remembered to have made; more than are in use at once.
MAX_REMEMBERED: Final = 4096


class Right(enum.Enum):
    """What a method needs."""

    #: To be connected.
    CONNECT = "connect"
    VIEW = "view"
    OPERATE = "operate"
    REGISTER = "register"
    #: To be the host's user, or root.
    OWN = "own"
    #: To be a background worker.
    WORK = "work"


#: The one table. What needs VIEW or OPERATE and names a worker is allowed on one's own registrations too.
NEEDS: Final[dict[str, Right]] = {
    "ping": Right.CONNECT,
    "status": Right.VIEW,
    "find": Right.VIEW,
    "wait": Right.VIEW,
    "last_exit": Right.VIEW,
    "events": Right.VIEW,
    "register": Right.REGISTER,
    "terminate": Right.OPERATE,
    "start": Right.OPERATE,
    "restart": Right.OPERATE,
    "signal": Right.OPERATE,
    "reload": Right.OPERATE,
    "plan": Right.OPERATE,
    "upgrade": Right.OPERATE,
    "scale": Right.OPERATE,
    "stop": Right.OWN,
    "reexec": Right.OWN,
    "settings": Right.WORK,
    "ready_done": Right.WORK,
    "attach_segment": Right.WORK,
    "open_database": Right.WORK,
    "close_database": Right.WORK,
}


@dataclass(frozen=True)
class Grants:
    """The rights of one caller."""

    rights: frozenset[Right]
    #: Libraries, or libraries and functions, that it may register; empty means any.
    registrable: tuple[tuple[str, ...], ...] = ()

    def allows_registration(self, worker: BackgroundWorker) -> bool:
        """Whether the library and function of a registration are among those allowed."""
        if Right.REGISTER not in self.rights:
            return False
        # Where a whole library is allowed, a dotted name would lead out of it: shop.os.system.
        return not self.registrable or any(
            limits == (worker.bgw_library_name, worker.bgw_function_name)
            or (limits == (worker.bgw_library_name,) and "." not in worker.bgw_function_name)
            for limits in self.registrable
        )


OWNER: Final = Grants(frozenset(Right))
WORKER: Final = Grants(frozenset({Right.CONNECT, Right.VIEW, Right.REGISTER, Right.WORK}))


def member_grants(allowed: Sequence[str]) -> Grants:
    """Return the rights that ``control_allow`` lists; whoever may operate may also view."""
    rights = {Right.CONNECT}
    limits: list[tuple[str, ...]] = []
    for text in allowed:
        verb, *rest = text.split(":")
        rights.add(Right(verb))
        if verb == "operate":
            rights.add(Right.VIEW)
        if verb == "register":
            limits.append(tuple(rest))
    return Grants(frozenset(rights), () if () in limits else tuple(limits))


@dataclass(frozen=True)
class Access:
    """Who besides the host's user and root may connect. Made before the host's loop, for it asks the system's databases."""

    gid: int
    grants: Grants
    #: Users in the group by the database of groups, for kernels that do not tell a peer's groups.
    members: frozenset[int] = field(default_factory=frozenset)

    def admits(self, uid: int, gid: int, others: frozenset[int] | None) -> bool:
        """Whether a peer with this user, primary group and supplementary groups is a member."""
        return self.gid == gid or (uid in self.members if others is None else self.gid in others)


def access_for(group: str | None, allowed: Sequence[str]) -> Access | None:
    """Return who may connect by ``control_group`` and ``control_allow``.

    Raises:
        ConfigurationError: There is no such group.
    """
    if group is None:
        return None
    try:
        entry = grp.getgrnam(group)
    except KeyError:
        raise ConfigurationError(
            f'[host] control_group "{printable(group)}" does not exist',
            "This system has no group of that name.",
            "Create it first.",
        ) from None
    members = set()
    for name in entry.gr_mem:
        try:
            members.add(pwd.getpwnam(name).pw_uid)
        except KeyError:
            continue  # a member that is no user of this system
    return Access(entry.gr_gid, member_grants(allowed), frozenset(members))


def check(caller: Caller, method: str, is_about_own: Callable[[], bool]) -> None:
    """See that a caller may call a method.

    Args:
        caller: Who asks.
        method: One of the host's methods.
        is_about_own: Tells whether the request names the caller itself, or something that it registered.

    Raises:
        PermissionDenied: It may not.
    """
    need = NEEDS.get(method)
    if need is None:
        raise PermissionDenied(f'permission denied for "{printable(method)}": no right is named for it')
    if need is Right.WORK and caller.worker is None:
        raise PermissionDenied(f'permission denied for "{method}": only background workers may ask for it')
    if need in caller.grants.rights or (need in (Right.VIEW, Right.OPERATE) and is_about_own()):
        return
    if caller.worker is not None:
        raise PermissionDenied(
            f'permission denied for "{method}": a background worker may not ask for it',
            "Over its channel a worker acts on itself and on what it has registered, and on nothing else.",
        )
    if need is Right.OWN:
        raise PermissionDenied(f'permission denied for "{method}": it takes the host\'s user or root')
    raise PermissionDenied(
        f'permission denied for "{method}": the right to {need.value} is missing',
        "Members of control_group have the rights that control_allow lists, and all rights over what they register.",
        f'Ask the host\'s owner for "{need.value}" in control_allow of [host].',
    )


def passed_on(caller: Caller, worker: BackgroundWorker) -> BackgroundWorker:
    """Return what a caller registers as it may be registered: what is imposed on a worker is imposed on its registrations.

    Raises:
        PermissionDenied: A worker with a user of its own asks for more than it has itself.
    """
    if caller.worker is None or not caller.is_confined:
        return worker
    registrar, name = caller.worker.worker, printable(str(worker.bgw_name))
    for key in IMPOSED:
        asked, own = getattr(worker, key), getattr(registrar, key)
        if asked is not None and asked != own:
            raise PermissionDenied(
                f'background worker "{name}" cannot be registered: permission denied for {key}',
                f'It is registered by "{printable(registrar.bgw_name)}", which runs as user "{printable(str(registrar.user))}"; '
                f"what that registers has the same {', '.join(IMPOSED)}.",
                f"Leave {key} out.",
            )
    if worker.is_database_worker and not registrar.is_database_worker:
        raise PermissionDenied(
            f'background worker "{name}" cannot be registered: permission denied for a database connection',
            f'It is registered by "{printable(registrar.bgw_name)}", which has a user of its own and no database connection.',
            "Give BGWORKER_BACKEND_DATABASE_CONNECTION to the worker that registers it.",
        )
    return replace(worker, **{key: getattr(registrar, key) for key in IMPOSED})


def check_registration(caller: Caller, worker: BackgroundWorker) -> None:
    """See that a caller may register this worker.

    Raises:
        PermissionDenied: The library or function is not among those allowed, or a key would reach beyond the worker.
    """
    name = printable(worker.bgw_name)
    if worker.essential and Right.OWN not in caller.grants.rights:
        # Else the right to register were the right to stop the host: an essential worker need only fail.
        raise PermissionDenied(
            f'background worker "{name}" cannot be registered: permission denied for essential',
            "When an essential worker fails the host stops, and to stop it takes the host's user or root.",
            "Leave essential out, or put the worker into workers.toml.",
        )
    if worker.command is not None and Right.REGISTER in caller.grants.rights and caller.grants.registrable:
        raise PermissionDenied(
            f'background worker "{name}" cannot be registered: permission denied for command',
            "The right to register functions of some libraries does not extend to programs.",
            'Ask the host\'s owner for "register" in control_allow of [host].',
        )
    if not caller.grants.allows_registration(worker):
        allowed = ", ".join(":".join(("register", *limits)) for limits in caller.grants.registrable)
        raise PermissionDenied(
            f'background worker "{name}" cannot be registered: permission denied for '
            f'"{printable(worker.bgw_library_name)}:{printable(worker.bgw_function_name)}"',
            f"Allowed are {allowed}." if allowed else "",
            "See control_allow in [host] of workers.toml.",
        )
    if caller.grants.registrable and (worker.stop_timeout is not None or worker.stop_signal != STOP_SIGNALS[0]):
        # A signal that nobody heeds and a day's patience for it would hold up every shutdown of the host.
        raise PermissionDenied(
            f'background worker "{name}" cannot be registered: permission denied for '
            f"{'stop_signal' if worker.stop_timeout is None else 'stop_timeout'}",
            "The right to register one library's functions does not extend to how long the host waits for them at its end.",
            'Leave it out, or ask the host\'s owner for "register" in control_allow of [host].',
        )
    if caller.grants.registrable and (keys := list(worker.surroundings())):
        # A variable of the environment is enough to run other code: PYTHONPATH, LD_PRELOAD.
        raise PermissionDenied(
            f'background worker "{name}" cannot be registered: permission denied for {keys[0]}',
            "The right to register one library's functions does not extend to the surroundings that they run in.",
            f'Leave {", ".join(keys)} out, or ask the host\'s owner for "register" in control_allow of [host].',
        )


def check_identity(own: OwnIdentity, worker: BackgroundWorker) -> None:
    """See that this host has the right to run a worker as its user and group; whether they exist shows at its birth.

    Raises:
        RegistrationError: It does not run as root, and they are not its own.
    """
    refusal = own.refusal(worker.user, worker.group)
    if refusal is not None:
        reason, detail, hint = refusal
        raise RegistrationError(f'background worker "{printable(worker.bgw_name)}" cannot be registered: {reason}', detail, hint)
