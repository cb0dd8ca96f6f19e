"""Fixtures: a collector in a directory of its own, and no process and no descriptor left behind."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.collector.host_end import HostEnd


@pytest.fixture(autouse=True)
def no_descriptor_left() -> Iterator[None]:
    """Fail a test that leaves a descriptor open."""
    before = _descriptors()
    yield
    gc.collect()
    assert not _descriptors() - before


def _descriptors() -> set[tuple[str, str]]:
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add((fd, os.readlink(f"/proc/self/fd/{fd}")))
        except FileNotFoundError:
            pass  # the one that listed the directory
    return found


@pytest.fixture
def data_directory(tmp_path: Path) -> Path:
    """Return a data directory."""
    path = tmp_path / "data"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def start_host(data_directory: Path) -> Iterator[Callable[..., HostEnd]]:
    """Return what starts a collector, with the arguments of HostEnd."""
    hosts: list[HostEnd] = []

    def start(*arguments: object, **options: object) -> HostEnd:
        hosts.append(HostEnd(*(arguments or (data_directory,)), **options))  # type: ignore[arg-type]
        return hosts[-1]

    yield start
    for host in hosts:
        host.close()


@pytest.fixture
def host(start_host: Callable[..., HostEnd]) -> HostEnd:
    """Return the host end of a collector that writes files."""
    return start_host()
