"""A mistake of the host's own: it ends, and its log says of what."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from bgworker.testing import DEADLINE, RunningHost

from .points import Points


@pytest.fixture
def points() -> Iterator[Points]:
    """Injection points, and nobody held there at the end."""
    points = Points()
    yield points
    points.close()


def test_last_words_of_the_host_reach_its_log(make_host: Callable[..., RunningHost], points: Points) -> None:
    """A host that dies of an exception ends with exit code 1, and host.log has the reason as its last entry."""
    host = make_host('[host]\nmax_worker_processes = 4\n[[worker]]\nbgw_name = "one"\ncommand = ["sleep", "600"]\n')
    points.order("host.born", "error 5")
    points.start(host)
    assert host.process is not None
    assert host.process.wait(DEADLINE) == 1
    host.wait_until(lambda: "FATAL:  internal error of the host, every worker ends with it" in host.log(), "the log says why")
    host.wait_until(lambda: "(injected, EIO)" in host.log(), "the log says of what")
    host.process = None
