"""A pooler before the server: a transaction pooler is found out and named, a session pooler is none of our business."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from tests.integration.database.driving import FakeHost, Server
from tests.integration.database.pooler import Pooler, needs_pgbouncer

pytestmark = needs_pgbouncer

MakePooler = Callable[..., Pooler]


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_transaction_pooler_is_named(host: FakeHost, shared_server: Server, make_pooler: MakePooler, mode: str) -> None:
    """Without direct_url: read-write, with a detail and one warning that say what does not work and name direct_url."""
    pooler = make_pooler(shared_server, mode)
    host.external(pooler.url())
    host.send(type="listen", channels={"": ["orders"]})
    message = host.phase("recovery_finished")
    assert message["detail"] == "url leads to a transaction pooler: notifications (wake_on) cannot be received"
    assert message["is_pooled"]
    assert message["direct_conninfo"] == ""
    (warning,) = host.messages("log")
    assert warning["level"] == "WARNING"
    assert warning["message"] == "[database] " + message["detail"]
    assert "direct_url" in warning["hint"]
    with host.connect(prepare_threshold=None) as connection:
        # Nothing of ours listens, where it would be dead without a word.
        assert connection.execute("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'").fetchone() == (0,)
    assert host.messages("gap") == []
    assert host.stop() < 2


def test_direct_url_passes_the_pooler_by(host: FakeHost, shared_server: Server, make_pooler: MakePooler) -> None:
    """With direct_url: said once and without a warning, and notifications arrive."""
    pooler = make_pooler(shared_server, "transaction")
    host.external(pooler.url(), direct_url=shared_server.url)
    host.send(type="listen", channels={"": ["orders"]})
    message = host.phase("recovery_finished")
    assert message["detail"] == "url leads to a transaction pooler; direct_url passes it by"
    assert message["is_pooled"]
    assert psycopg.conninfo.conninfo_to_dict(message["direct_conninfo"])["host"] == "127.0.0.1"
    host.received("gap")
    with pooler.connect() as connection:
        connection.execute("SELECT pg_notify('orders', '42')")
    host.received("notify", payload="42")
    (line,) = host.messages("log")
    assert line["level"] == "LOG"


@pytest.mark.parametrize("direct_mode", ["transaction", "session"])
def test_direct_url_that_leads_to_a_pooler(
    host: FakeHost, shared_server: Server, make_pooler: MakePooler, direct_mode: str
) -> None:
    """A direct_url that is no better than url is named; one to a session pooler serves."""
    pooler, other = make_pooler(shared_server, "transaction"), make_pooler(shared_server, direct_mode)
    host.external(pooler.url(), direct_url=other.url())
    host.send(type="listen", channels={"": ["orders"]})
    message = host.phase("recovery_finished")
    assert ("direct_url leads to a transaction pooler" in message["detail"]) == (direct_mode == "transaction")
    if direct_mode == "session":
        host.received("gap")


def test_session_pooler_is_not_warned_of(host: FakeHost, shared_server: Server, make_pooler: MakePooler) -> None:
    """In session mode everything works as without a pooler, and nothing is said."""
    pooler = make_pooler(shared_server, "session")
    host.external(pooler.url())
    host.send(type="listen", channels={"": ["orders"]})
    message = host.phase("recovery_finished")
    assert message["detail"] == ""
    assert not message["is_pooled"]
    host.received("gap")
    assert host.messages("log") == []


def test_pooler_with_several_sessions_is_found_out(host: FakeHost, shared_server: Server, make_pooler: MakePooler) -> None:
    """Two idle sessions that are given out in turn do not hide what it is."""
    pooler = make_pooler(shared_server, "transaction", "server_round_robin = 1")
    strangers = [pooler.connect() for _ in range(2)]
    for stranger in strangers:
        stranger.execute("BEGIN")
    for stranger in strangers:
        stranger.execute("COMMIT")
        stranger.close()
    with pooler.connect() as stranger:
        pids = {stranger.execute("SELECT pg_backend_pid()").fetchone() for _ in range(4)}
    assert len(pids) == 2
    host.external(pooler.url())
    assert host.phase("recovery_finished")["is_pooled"]


@pytest.mark.slow
def test_server_that_goes_behind_a_pooler_is_noticed(host: FakeHost, server: Server, make_pooler: MakePooler) -> None:
    """The pooler keeps our connection when the server goes; it is asked, and so the absence and the return are seen."""
    pooler = make_pooler(server, "transaction", "server_login_retry = 0.2")
    host.external(pooler.url())
    host.phase("recovery_finished")
    mark = host.mark()
    server.stop()
    host.phase("unreachable", mark)
    server.start()
    host.phase("recovery_finished", mark)
