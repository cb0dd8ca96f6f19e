"""Makes plugin distributions in a directory, as pip would leave them: packages with a .dist-info beside them.

``bad/`` holds one module for each way in which a plugin can go wrong; ``make_bad`` turns one
into a distribution ``bad-NAME`` that offers it as plugin NAME. Some end, hang or crash the
process that imports them: those are for tests with a process to lose.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

BAD = Path(__file__).parent / "bad"


def make_distribution(
    root: Path,
    name: str,
    *,
    version: str = "1.0",
    files: Mapping[str, str] | None = None,
    entry_points: Mapping[str, Mapping[str, str]] | str | bytes | None = None,
    metadata: str | None = None,
) -> Path:
    """Write a distribution and return its .dist-info.

    Args:
        root: A directory that is, or will be, on sys.path.
        name: Of the distribution.
        version: Of the distribution.
        files: Relative path -> source.
        entry_points: Group -> name -> value; text or bytes are written as they are.
        metadata: METADATA as it is; by default a right one.
    """
    for path, source in (files or {}).items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source)
    info = root / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" if metadata is None else metadata)
    if isinstance(entry_points, bytes):
        (info / "entry_points.txt").write_bytes(entry_points)
    elif entry_points is not None:
        (info / "entry_points.txt").write_text(entry_points if isinstance(entry_points, str) else _entry_points_text(entry_points))
    return info


def make_bad(root: Path, name: str) -> Path:
    """Write the distribution of ``bad/NAME.py`` and return its .dist-info."""
    return make_distribution(
        root,
        f"bad-{name.replace('_', '-')}",
        files={f"{name}.py": (BAD / f"{name}.py").read_text()},
        entry_points={"bgworker.plugins": {name: name}},
    )


def _entry_points_text(groups: Mapping[str, Mapping[str, str]]) -> str:
    return "\n".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items()) for group, points in groups.items()
    )
