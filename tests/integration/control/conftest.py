"""Fixtures: a fake host in a directory of its own, and no descriptor left behind."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.control.fake_host import FakeHost


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
def host(tmp_path: Path) -> Iterator[FakeHost]:
    """A fake host that answers "ping" and holds every other request."""
    fake = FakeHost(tmp_path / "data")
    yield fake
    fake.close()
