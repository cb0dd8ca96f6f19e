"""What this process's user can reach: asked of the kernel, because modes alone do not tell (access control lists).

Any process of ours that has become another user may import this room.
"""

from __future__ import annotations

import os


def first_closed(target: str) -> str:
    """Return what keeps this process from a path: the topmost directory it cannot enter, the path itself, or "" for nothing.

    Args:
        target: Absolute and without symlinks.
    """
    above = target
    ancestors: list[str] = []
    while (above := os.path.dirname(above)) not in ancestors:
        ancestors.append(above)
    for directory in reversed(ancestors):
        if not os.access(directory, os.X_OK):
            return directory
    return "" if os.access(target, os.R_OK | os.X_OK if os.path.isdir(target) else os.R_OK) else target
