"""The kept corpus: valid inputs to mutate, and inputs that once did harm; one file each, in ``corpus/``.

What a fuzz run finds is written there by hand, under a name that says what it was, so that it
is tried for ever, first and unmutated.
"""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import strategies as st

#: How many times more examples than continuous integration tries: FUZZ=50 make test, for an afternoon's search.
TIMES = int(os.environ.get("FUZZ", "1"))
_CORPUS = Path(__file__).with_name("corpus")


def seeds(kind: str) -> list[bytes]:
    """Return every kept input of a kind."""
    return [path.read_bytes() for path in sorted((_CORPUS / kind).iterdir())]


@st.composite
def mutated(draw: st.DrawFn, kind: str, pieces: tuple[bytes, ...]) -> bytes:
    """Return a kept input with some of its bytes cut out, doubled or replaced, or joined to another."""
    kept = seeds(kind)
    data = draw(st.sampled_from(kept))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)))
        new = draw(
            st.one_of(
                st.sampled_from(pieces), st.binary(max_size=8), st.just(data[start:end] * 2), st.sampled_from(kept), st.just(b"")
            )
        )
        data = data[:start] + new + data[end:]
    return data
