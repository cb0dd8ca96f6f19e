"""Written values read back as they were."""

from __future__ import annotations

from typing import Any

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from bgworker._toml_text import table_text, value_text

TEXT = st.text(st.characters(exclude_categories=("Cs",)))
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(TEXT, VALUES, max_size=4))
def test_read_back(values: dict[str, Any]) -> None:
    """A parser reads exactly what was written."""
    assert tomli.loads(table_text("[t]", values))["t"] == values


def test_other_kinds_are_refused() -> None:
    """A value that is written nowhere is the caller's mistake."""
    with pytest.raises(TypeError, match="bytes"):
        value_text(b"x")
