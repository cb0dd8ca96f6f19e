"""The rules of the connection, before any server is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bgworker import spi, worker
from bgworker._worker.connection import plan
from bgworker._worker.refusals import UsageError
from bgworker._worker.runtime import Runtime
from bgworker.errors import HostError


@pytest.mark.parametrize(
    ("arguments", "parameters", "session_role"),
    [
        ((None, None, 0), {}, None),
        (("shop", None, 0), {"dbname": "shop"}, None),
        (("shop", "anna", 0), {"dbname": "shop", "user": "anna"}, None),
        ((None, "anna", worker.BGWORKER_BYPASS_ROLELOGINCHECK), {}, "anna"),
        ((None, None, worker.BGWORKER_BYPASS_ROLELOGINCHECK), {}, None),
    ],
)
def test_how_to_connect(
    make: Callable[..., Runtime], arguments: tuple[Any, Any, int], parameters: dict[str, Any], session_role: str | None
) -> None:
    """C15, C16, C17, C19: None leaves a choice to the configuration; the bypass logs in as configured and becomes the role."""
    wanted = plan(make(), *arguments)
    assert wanted.parameters == {"application_name": "tested", **parameters}
    assert wanted.session_role == session_role


@pytest.mark.parametrize(
    ("arguments", "opens", "must_log_in", "must_connect"),
    [
        (("shop", "anna", worker.BGWORKER_BYPASS_ALLOWCONN), "shop", True, False),
        (("shop", "anna", worker.BGWORKER_BYPASS_ROLELOGINCHECK), None, False, True),
        (("shop", "anna", worker.BGWORKER_BYPASS_ALLOWCONN | worker.BGWORKER_BYPASS_ROLELOGINCHECK), "shop", False, False),
        ((None, "anna", worker.BGWORKER_BYPASS_ALLOWCONN), None, True, False),
    ],
)
def test_what_a_bypass_skips(
    make: Callable[..., Runtime], arguments: tuple[Any, Any, int], opens: str | None, must_log_in: bool, must_connect: bool
) -> None:
    """C18, C19: each flag skips its own test, ALLOWCONN the CONNECT privilege as well; both log in as the configured role."""
    wanted = plan(make(), *arguments)
    assert (wanted.opens, wanted.must_log_in, wanted.must_connect) == (opens, must_log_in, must_connect)
    assert ("user" in wanted.parameters, wanted.session_role) == (False, "anna")


def test_only_no_database_is_read_only(make: Callable[..., Runtime]) -> None:
    """C16: read-only where no database was named, and not in connect()."""
    assert plan(make(), None, "anna", 0).is_read_only
    assert not plan(make(), "shop", None, 0).is_read_only
    assert not plan(make(), None, None, 0, read_write=True).is_read_only


def test_configured_role_is_the_default(make: Callable[..., Runtime]) -> None:
    """C17: a configured role is used unless the worker names one."""
    runtime = make(role="shop")
    assert plan(runtime, None, None, 0).parameters["user"] == "shop"
    assert plan(runtime, None, "anna", 0).parameters["user"] == "anna"


@pytest.mark.parametrize(
    ("facts", "arguments", "error", "text"),
    [
        ({"flags": 1}, (None, None, 0), UsageError, "without the flag"),
        ({"conninfo": None}, (None, None, 0), UsageError, "it was given none"),
        ({}, (None, None, 4), UsageError, "flags that do not exist"),
        ({}, ("", None, 0), UsageError, "database name is empty"),
        ({}, (None, "", 0), UsageError, "role name is empty"),
    ],
)
def test_refusals(
    make: Callable[..., Runtime], facts: dict[str, Any], arguments: tuple[Any, Any, int], error: type[HostError], text: str
) -> None:
    """C06, C15: what cannot be is refused with its reason before a server is asked."""
    with pytest.raises(error, match=text):
        plan(make(**facts), *arguments)


def test_flag_is_named(make: Callable[..., Runtime]) -> None:
    """C06: the error names BGWORKER_BACKEND_DATABASE_CONNECTION."""
    make(flags=1)
    with pytest.raises(UsageError) as caught:
        worker.connect()
    assert "BGWORKER_BACKEND_DATABASE_CONNECTION" in caught.value.message_detail
    with pytest.raises(UsageError) as caught:
        spi.connection()
    assert "BGWORKER_BACKEND_DATABASE_CONNECTION" in caught.value.message_hint


def test_no_error_has_the_password(make: Callable[..., Runtime]) -> None:
    """C06: a refusal never shows the connection string."""
    runtime = make(conninfo="password=secret")
    runtime.connection = object()  # type: ignore[assignment]
    with pytest.raises(UsageError) as caught:
        plan(runtime, None, None, 0)
    assert "secret" not in str(caught.value.to_dict())
