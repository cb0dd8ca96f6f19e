"""What ``bgworker.testing`` gives to authors of plugins."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from bgworker.testing import RunningHost


def test_database_is_a_url_of_its_own(bgworker_database: str, bgworker_host: Callable[..., RunningHost]) -> None:
    """The fixture's URL is fresh, and is one that workers.toml takes."""
    with psycopg.connect(bgworker_database) as connection:
        row = connection.execute(
            "SELECT current_database(), count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        ).fetchone()
    assert row is not None
    assert row[0].startswith("test_")
    assert row[1] == 0
    host = bgworker_host(f'[database]\nurl = "{bgworker_database}"\n')
    assert host.status()["host"]["database"]["kind"] == "external"
    assert row[0] in host.database_url()
