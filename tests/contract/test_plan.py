"""The table of what a changed key does, held against the registration that it describes."""

from __future__ import annotations

from bgworker._host.plan import KEYS
from bgworker._spec import FIELD_NAMES


def test_every_key_has_a_row() -> None:
    """Whoever adds a key to BackgroundWorker says whether it takes effect live or with a restart, and what a plan may show."""
    assert set(KEYS) == set(FIELD_NAMES)
