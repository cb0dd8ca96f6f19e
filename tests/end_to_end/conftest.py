"""The fixtures of ``bgworker.testing``, under the names that these tests use."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bgworker.testing import RunningHost


@pytest.fixture
def make_host(bgworker_host: Callable[..., RunningHost]) -> Callable[..., RunningHost]:
    """Return a maker of hosts that are not started yet."""

    def make(configuration: str = "", **modules: str) -> RunningHost:
        return bgworker_host(configuration, start=False, **modules)

    return make


@pytest.fixture
def host(bgworker_host: Callable[..., RunningHost]) -> RunningHost:
    """Return a running host without a database and without workers."""
    return bgworker_host("[host]\nmax_worker_processes = 8\n")
