"""_host/main.py: what a host takes for itself before it begins."""

from __future__ import annotations

import re
import resource

import pytest

from bgworker._config.descriptors import MAX_IN_FLIGHT, needed
from bgworker._config.model import HostSettings
from bgworker._control.server import MAX_CONNECTIONS
from bgworker._host import main
from bgworker.errors import ConfigurationError


@pytest.mark.parametrize(("slots", "spares"), [(8, 2), (64, 2), (4000, 16)])
def test_descriptors_for_every_worker_at_once(monkeypatch: pytest.MonkeyPatch, slots: int, spares: int) -> None:
    """C13: a channel, two pipes and a bgw_notify_pid of each worker fit, while others are born and clients are connected."""
    settings = HostSettings(max_worker_processes=slots, spare_workers=spares)
    taken = []
    monkeypatch.setattr(resource, "getrlimit", lambda _limit: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", lambda _limit, limits: taken.append(limits[0]))
    main._raise_descriptor_limit(settings)
    processes = slots + spares
    assert taken == [needed(settings)]
    assert taken[0] > 4 * processes + 3 * min(processes, MAX_IN_FLIGHT) + MAX_CONNECTIONS


def test_fewer_than_that_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that every slot together would break is refused at the start, with both numbers."""
    settings = HostSettings()
    monkeypatch.setattr(resource, "getrlimit", lambda _limit: (256, needed(settings) - 1))
    with pytest.raises(ConfigurationError) as caught:
        main._raise_descriptor_limit(settings)
    assert re.findall(r"\d+", caught.value.message_detail) == [str(needed(settings)), str(needed(settings) - 1)]
