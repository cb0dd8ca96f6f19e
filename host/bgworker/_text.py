"""Which characters a terminal shows and which it would obey.

A leaf: pure, imports nothing of ours. Apart from ``_spec`` because clients read worker-written
text from the activity table without needing what a registration is.
"""

from __future__ import annotations

import unicodedata

#: Characters that reorder text on a terminal; they could make one worker's name look like another's.
_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def is_inert(character: str) -> bool:
    """Whether a terminal shows the character and does nothing else."""
    # Cc: C0, DEL and C1; Cs: lone surrogates; Zl and Zp: line and paragraph separators.
    return unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp") and character not in _BIDI_CONTROLS


def is_all_inert(text: str) -> bool:
    """Whether a terminal shows the text and does nothing else."""
    return (text.isascii() and text.isprintable()) or all(map(is_inert, text))


def printable(text: str) -> str:
    """Return the text with everything a terminal would obey replaced by ``?``."""
    return text if text.isascii() and text.isprintable() else "".join(c if is_inert(c) else "?" for c in text)
