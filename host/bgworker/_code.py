"""Which code a worker runs: its library's place, version, and a mark of its files; and which bgworker.

A worker notes it when it has imported its library; whoever looks at the same place later can
tell whether what is installed now is something else. Its bgworker is compared with the host's,
which may have executed itself anew since. Reads names and times of files, never
their content, and imports nothing of a plugin. Every room but the host may import it, and
``status --json`` does: standard library only.
"""

from __future__ import annotations

import os
import re
import sys
import zlib
from typing import Any

from bgworker._version import __version__

#: Of a library with more files, or folders, the first so many are looked at, in the order of their names.
_MAX_FILES = 2000
_SUFFIXES = (".py", ".so", ".pyd")
_DIST_INFO = re.compile(r"(?P<name>.+?)-(?P<version>[^-]+)\.dist-info")


def describe(module: str, distribution: str = "", version: str = "") -> dict[str, str]:
    """Return what there is to know of a library's code; empty when its place is not known.

    Args:
        module: The module that the library leads to; what counts is its top package.
        distribution: Where it comes from, if the caller knows; else that of the same name is looked for beside it.
        version: Of the distribution.
    """
    top = module.partition(".")[0]
    path = _place(top)
    if path is None:
        return {}
    if not distribution:
        distribution, version = installed(path, top)
    return {"distribution": distribution, "version": version, "path": path, "files": mark(path)}


def mark(path: str) -> str:
    """Return a short text that changes with a package's or module's files: names, times, sizes. Empty when it cannot be read."""
    sums = 0
    try:
        for name, at in _files(path):
            status = os.stat(at)
            sums = zlib.crc32(f"{name}\0{status.st_mtime_ns}\0{status.st_size}\n".encode("utf-8", "surrogateescape"), sums)
    except OSError:
        return ""
    return f"{sums:08x}"


def installed(path: str, distribution: str) -> tuple[str, str]:
    """Return name and version of a distribution whose metadata lies beside a package; empty texts when none does."""
    wanted = _folded(distribution)
    try:
        names = os.listdir(os.path.dirname(path))
    except OSError:
        return "", ""
    for name in names:
        found = _DIST_INFO.fullmatch(name)
        if found is not None and _folded(found["name"]) == wanted:
            return distribution, found["version"]
    return "", ""


def note_old(status: dict[str, Any]) -> list[dict[str, Any]]:
    """Say in the ``config`` of each slot whether its worker runs old code, and return the slots where it does.

    Adds ``is_old`` and ``installed``, the version that is there now, to what the worker said of its code, and
    ``host_bgworker``, the host's version of bgworker, if the worker has another one.
    """
    marks: dict[str, str] = {}
    host_version = str((status.get("host") or {}).get("version") or "")
    old = []
    for slot in status.get("slots") or ():
        code = (slot.get("config") or {}).get("code")
        if not isinstance(code, dict) or not code:
            continue
        path = str(code.get("path") or "")
        if path not in marks:
            marks[path] = mark(path) if path else ""
        code["is_old"] = bool(marks[path]) and marks[path] != code.get("files")
        code["installed"] = installed(path, str(code["distribution"]))[1] if path and code.get("distribution") else ""
        # One of the version that is installed, which ours is, is ahead of a host that is still to execute itself anew.
        if host_version and code.get("bgworker") and code["bgworker"] not in (host_version, __version__):
            code |= {"is_old": True, "host_bgworker": host_version}
        if code["is_old"]:
            old.append(slot)
    return old


def is_old(slot: dict[str, Any]) -> bool:
    """Whether ``note_old`` found this slot's worker with old code."""
    return bool(((slot.get("config") or {}).get("code") or {}).get("is_old"))


def in_words(code: dict[str, Any]) -> str:
    """Return how a worker's code differs from what is installed."""
    distribution, version, now = (str(code.get(key) or "") for key in ("distribution", "version", "installed"))
    of_host = f"bgworker {code.get('bgworker')}, the host {code['host_bgworker']}" if code.get("host_bgworker") else ""
    if distribution and version and now and now != version:
        return f"{distribution} {version}, {now} is installed" + (f"; {of_host}" if of_host else "")
    return of_host or f"{distribution or os.path.basename(str(code.get('path')))}, its files have changed"


def _place(top: str) -> str | None:
    """Return the package's folder, or the module's file."""
    module = sys.modules.get(top)
    spec = getattr(module, "__spec__", None)
    if spec is None and module is None:
        for finder in sys.meta_path:
            try:
                spec = finder.find_spec(top, None)
            # Other people's finders; not to know where a library lies is no failure.
            except Exception:
                continue
            if spec is not None:
                break
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    path = folders[0] if folders else spec.origin
    return os.path.abspath(path) if path and os.path.exists(path) else None


def _files(path: str) -> list[tuple[str, str]]:
    if not os.path.isdir(path):
        return [("", path)]
    found: list[tuple[str, str]] = []
    for looked, (folder, folders, names) in enumerate(os.walk(path, onerror=_raise)):
        folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
        found += [
            (os.path.join(os.path.relpath(folder, path), n), os.path.join(folder, n))
            for n in sorted(names)
            if n.endswith(_SUFFIXES)
        ]
        if len(found) > _MAX_FILES or looked > _MAX_FILES:  # the path is a worker's word
            break
    return found[:_MAX_FILES]


def _raise(error: OSError) -> None:
    raise error


def _folded(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).casefold()
