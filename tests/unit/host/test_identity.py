"""As whom a worker may run: what a host can promise, and what a worker with a user of its own may register."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from bgworker._host import rights
from bgworker._host.rights import WORKER, member_grants
from bgworker._process.identity import OwnIdentity, become, find_identity
from bgworker._spec import DATABASE_WORKER_FLAGS, BackgroundWorker
from bgworker.errors import HostError, PermissionDenied, RegistrationError

SHOP = OwnIdentity(1000, frozenset({"1000", "shop"}), frozenset({"1000", "staff"}))


def new(**keys: Any) -> BackgroundWorker:
    """Return a registration."""
    return BackgroundWorker(bgw_name="new", bgw_library_name="shop", bgw_function_name="drain", **keys)


def confined(**keys: Any) -> Any:
    """Return a caller that is a worker with a user of its own."""
    registrar = BackgroundWorker(bgw_name="registrar", user="web", **keys)
    return SimpleNamespace(worker=SimpleNamespace(worker=registrar), is_confined=True, grants=WORKER)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({}, None),
        ({"user": "shop", "group": "staff"}, None),
        ({"user": "1000"}, None),
        ({"user": "web"}, 'it cannot run as user "web": the host does not run as root'),
        ({"group": "web"}, 'it cannot run as group "web": the host does not run as root'),
        ({"user": "root"}, 'it cannot run as user "root": the host does not run as root'),
    ],
)
def test_host_without_roots_rights(keys: dict[str, str], reason: str | None) -> None:
    """A host that is not root runs workers as itself and refuses every other user and group at the registration."""
    if reason is None:
        rights.check_identity(SHOP, new(**keys))
        return
    with pytest.raises(RegistrationError) as refusal:
        rights.check_identity(SHOP, new(**keys))
    assert refusal.value.message_primary == f'background worker "new" cannot be registered: {reason}'
    assert "Start the host as root" in refusal.value.message_hint


def test_host_with_roots_rights() -> None:
    """Root may name anybody; whether there is such a user shows when it is tried."""
    rights.check_identity(OwnIdentity(0, frozenset({"0", "root"}), frozenset()), new(user="no-such-user", group="x"))


def test_registrations_have_what_is_imposed() -> None:
    """A worker with a user of its own hands it on, may say so, and may say nothing else."""
    caller = confined(group="staff")
    for worker in (new(), new(user="web"), new(group="staff"), new(user="web", group="staff")):
        passed = rights.passed_on(caller, worker)
        assert (passed.user, passed.group) == ("web", "staff")
    for keys in ({"user": "root"}, {"user": "0"}, {"group": "root"}, {"user": "web", "group": "adm"}):
        with pytest.raises(PermissionDenied, match=r"permission denied for (user|group)"):
            rights.passed_on(caller, new(**keys))
    with pytest.raises(PermissionDenied, match="permission denied for group"):
        rights.passed_on(confined(), new(group="web"))


def test_registrations_get_no_database_connection_from_one_without() -> None:
    """The URL has a password: a worker without the flag cannot get it by registering one that has it."""
    with pytest.raises(PermissionDenied, match="permission denied for a database connection"):
        rights.passed_on(confined(), new(bgw_flags=DATABASE_WORKER_FLAGS))
    caller = confined(bgw_flags=DATABASE_WORKER_FLAGS)
    assert rights.passed_on(caller, new(bgw_flags=DATABASE_WORKER_FLAGS)).is_database_worker


def test_others_register_as_they_like() -> None:
    """Clients, and workers that run as the host's user, could do anything as that user anyway."""
    for worker in (None, SimpleNamespace(worker=BackgroundWorker(bgw_name="registrar"))):
        caller: Any = SimpleNamespace(worker=worker, is_confined=False)
        assert rights.passed_on(caller, new(user="root")).user == "root"


def test_members_with_a_limited_right_set_no_surroundings() -> None:
    """Who may register one function may not choose in what it runs; who may register anything may."""
    limited: Any = SimpleNamespace(grants=member_grants(["register:shop"]))
    rights.check_registration(limited, new())
    with pytest.raises(PermissionDenied, match="permission denied for user"):
        rights.check_registration(limited, new(user="web"))
    unlimited: Any = SimpleNamespace(grants=member_grants(["register"]))
    rights.check_registration(unlimited, new(user="web"))


def test_identity_of_this_process() -> None:
    """One's own user by name, by number and by default is no change, and becoming it does nothing."""
    own = OwnIdentity.of_this_process()
    for user in (None, *own.users):
        identity = find_identity(user, None)
        assert (identity.uid, identity.is_change) == (os.geteuid(), False)
        become(identity)
        assert own.is_user(user)
    assert not own.is_user("no-such-user")


@pytest.mark.parametrize(
    ("user", "group", "reason"),
    [
        ("no-such-user", None, 'user "no-such-user" does not exist'),
        ("no\x1bsuch", None, 'user "no?such" does not exist'),
        (None, "no-such-group", 'group "no-such-group" does not exist'),
        ("1234567", None, 'user "1234567" has no group'),
        ("4294967295", "0", 'user "4294967295" does not exist'),
    ],
)
def test_nobody_of_that_name(user: str | None, group: str | None, reason: str) -> None:
    """What the system's databases do not know is named; the number that means "leave it" is nobody's."""
    with pytest.raises(HostError) as error:
        find_identity(user, group)
    assert error.value.message_primary.startswith(reason)


def test_numbers_without_names() -> None:
    """A container may run under numbers that no database knows: then group is needed, and is the only one."""
    identity = find_identity("1234567", "7654321")
    assert (identity.uid, identity.gid, identity.groups, identity.home) == (1234567, 7654321, (7654321,), "/")
