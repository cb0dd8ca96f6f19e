"""The faces as modules: cheap to import, sorted, twins complete."""

from __future__ import annotations

import subprocess
import sys

import bgworker.aio
import bgworker.spi
import bgworker.worker


def test_importing_a_face_is_cheap() -> None:
    """Importing the worker's faces brings in neither asyncio nor psycopg nor a plugin library."""
    program = (
        "import sys, bgworker.worker, bgworker.spi, bgworker.aio\n"
        "heavy = ('asyncio', 'psycopg', 'pluggy', 'msgspec', 'importlib_metadata', 'logging', 'rich')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_names_are_sorted_and_there() -> None:
    """Every public name exists."""
    for face in (bgworker.aio, bgworker.spi, bgworker.worker):
        assert face.__all__ == sorted(face.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
        for name in face.__all__:
            assert getattr(face, name) is not None


def test_async_twins_are_complete() -> None:
    """C23: what a blocking worker can do, an async one can do under the same name."""
    blocking_only = {"connect", "block_signals", "unblock_signals", "Segment", "Terminated", "UsageError"}
    constants = {name for name in bgworker.worker.__all__ if name.isupper()}
    assert set(bgworker.worker.__all__) - blocking_only - constants <= set(bgworker.aio.__all__)
    assert set(bgworker.spi.__all__) <= set(bgworker.aio.__all__)
