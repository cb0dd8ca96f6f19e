"""Rights: every method has one, and what control_allow lists is what members get."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from bgworker._host.callers import Caller, Callers
from bgworker._host.requests import METHODS
from bgworker._host.rights import NEEDS, OWNER, WORKER, Access, Grants, Right, check_registration, member_grants
from bgworker._spec import BackgroundWorker, sanity_check
from bgworker.errors import PermissionDenied


def test_every_method_has_a_right() -> None:
    """A method that is added without a right would be refused to everybody; it is found here first."""
    assert set(NEEDS) == set(METHODS)


def test_rights_of_members() -> None:
    """Nobody gets the owner's or a worker's rights by control_allow."""
    everything = member_grants(["view", "operate", "register"])
    assert everything.rights == {Right.CONNECT, Right.VIEW, Right.OPERATE, Right.REGISTER}
    assert member_grants([]).rights == {Right.CONNECT}


@pytest.mark.parametrize(
    ("allowed", "function", "is_allowed"),
    [
        (["register:shop"], "export", True),
        (["register:shop"], "os.system", False),
        (["register:shop:os.system"], "os.system", True),
        (["register:shop:export", "register:other"], "drain", False),
        (["register:shop:export", "register"], "drain", True),
        (["view", "operate"], "export", False),
    ],
)
def test_what_may_be_registered(allowed: list[str], function: str, is_allowed: bool) -> None:
    """A right to one library leads nowhere else, and the widest right counts."""
    worker = BackgroundWorker(bgw_name="x", bgw_library_name="shop", bgw_function_name=function)
    assert member_grants(allowed).allows_registration(worker) is is_allowed


@pytest.mark.parametrize(
    ("allowed", "is_allowed"),
    [(["register"], True), (["register:bgworker"], False), (["register:bgworker:command_main"], False), (["view"], False)],
)
def test_who_may_register_programs(allowed: list[str], is_allowed: bool) -> None:
    """A right that is limited to functions does not reach to programs, whatever function stands for them."""
    worker = sanity_check(BackgroundWorker(bgw_name="x", command=("/bin/true",)), is_dynamic=True)
    connection: Any = None
    caller = Caller(connection, 1, grants=member_grants(allowed))
    with nullcontext() if is_allowed else pytest.raises(PermissionDenied):
        check_registration(caller, worker)


@pytest.mark.parametrize(
    ("gid", "others", "is_member"),
    [(7, frozenset(), True), (1, frozenset({7}), True), (1, frozenset({8}), False), (1, None, True)],
)
def test_membership(gid: int, others: frozenset[int] | None, is_member: bool) -> None:
    """The primary group counts, the supplementary ones too, and the database of groups where the kernel does not tell."""
    access = Access(7, member_grants(["view"]), frozenset({1000}))
    assert access.admits(1000, gid, others) is is_member
    assert not access.admits(1001, 1, None)


@pytest.mark.parametrize("grants", [member_grants(["register", "operate"]), member_grants(["register:shop"]), WORKER])
def test_who_may_not_stop_the_host_registers_nothing_essential(grants: Grants) -> None:
    """An essential worker that fails takes the host along, so it is for those alone who may stop it."""
    caller: Any = SimpleNamespace(grants=grants)
    worker = BackgroundWorker(bgw_name="x", bgw_library_name="shop", bgw_function_name="f", essential=True)
    with pytest.raises(PermissionDenied, match="permission denied for essential"):
        check_registration(caller, worker)
    check_registration(SimpleNamespace(grants=OWNER), worker)  # type: ignore[arg-type]


@pytest.mark.parametrize("keys", [{"stop_timeout": 86_400.0}, {"stop_signal": "WINCH"}])
def test_members_with_a_limited_right_cannot_hold_up_a_shutdown(keys: dict[str, Any]) -> None:
    """A signal that nobody heeds, or a day until SIGKILL, would keep the host from ending."""
    worker = BackgroundWorker(bgw_name="x", bgw_library_name="shop", bgw_function_name="f", **keys)
    limited: Any = SimpleNamespace(grants=member_grants(["register:shop"]))
    with pytest.raises(PermissionDenied, match=f"permission denied for {next(iter(keys))}"):
        check_registration(limited, worker)
    check_registration(SimpleNamespace(grants=member_grants(["register"])), worker)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("is_confined", "is_database_worker", "outcome"),
    [
        (True, False, pytest.raises(PermissionDenied, match='permission denied for "notifications"')),
        (True, True, nullcontext()),
        (False, False, nullcontext()),
    ],
)
def test_who_hears_what_the_database_says(is_confined: bool, is_database_worker: bool, outcome: Any) -> None:
    """A worker with a user of its own that gets no connection gets no payload of a notification either."""
    registration = SimpleNamespace(is_database_worker=is_database_worker)
    process: Any = SimpleNamespace(worker=registration)
    connection: Any = None
    caller = Caller(connection, 1, process, grants=WORKER, is_confined=is_confined)
    host: Any = SimpleNamespace(callers=Callers())
    with outcome:
        METHODS["events"](host, caller, 1, {"notifications": True})
    METHODS["events"](host, caller, 1, {})
    assert caller.is_subscribed
