"""What a worker may do through a transaction pooler, before any server is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from bgworker import worker
from bgworker._worker.connection import plan
from bgworker._worker.refusals import UsageError
from bgworker._worker.runtime import Runtime

BYPASSES = [worker.BGWORKER_BYPASS_ALLOWCONN, worker.BGWORKER_BYPASS_ROLELOGINCHECK]


def pooled(runtime: Runtime, direct_conninfo: str = "") -> Runtime:
    """Put the runtime behind a transaction pooler."""
    assert runtime.database is not None
    runtime.database = replace(runtime.database, is_pooled=True, direct_conninfo=direct_conninfo)
    return runtime


def test_nothing_is_prepared_in_a_pooled_session(make: Callable[..., Runtime]) -> None:
    """A prepared statement would be one of another session's the next time; without a pooler psycopg prepares as ever."""
    wanted = plan(pooled(make(), "host=direct"), "shop", None, 0)
    assert wanted.parameters["prepare_threshold"] is None
    assert wanted.conninfo == "host=nowhere"
    assert "prepare_threshold" not in plan(make(), "shop", None, 0).parameters


@pytest.mark.parametrize("flag", BYPASSES)
def test_bypass_needs_a_session(make: Callable[..., Runtime], flag: int) -> None:
    """C18, C19: through a pooler a bypass is refused with the way out; it takes direct_url where there is one."""
    with pytest.raises(UsageError, match="a bypass flag cannot be used through a transaction pooler") as raised:
        plan(pooled(make()), "shop", "anna", flag)
    assert "direct_url" in raised.value.message_hint
    assert plan(pooled(make(), "host=direct"), "shop", "anna", flag).conninfo == "host=direct"


def test_session_without_a_pooler(make: Callable[..., Runtime]) -> None:
    """A direct_url is for sessions, whatever url is; without one url serves."""
    facts = make().database
    assert facts is not None
    assert facts.session_conninfo("a lock") == "host=nowhere"
    assert replace(facts, direct_conninfo="host=direct").session_conninfo("a lock") == "host=direct"
