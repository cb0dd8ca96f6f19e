"""Delays between tries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bgworker._database.backoff import Backoff


def test_delays_double_up_to_the_limit_and_start_over() -> None:
    """Without jitter the delays are 1, 2, 4, 5, 5; after a success 1 again."""
    backoff = Backoff(1.0, 5.0, jitter=0.0)
    assert [backoff.next() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert backoff.failures == 5
    backoff.reset()
    assert backoff.next() == 1.0


@given(st.integers(0, 5000), st.floats(0.0, 1.0))
def test_jitter_stays_within_its_part(failures: int, draw: float) -> None:
    """However long a server is away, the delay stays near the limit."""
    backoff = Backoff(0.25, 30.0, jitter=0.25, draw=lambda: draw)
    backoff.failures = failures
    assert 0.25 * 0.75 <= backoff.next() <= 30.0 * 1.25
