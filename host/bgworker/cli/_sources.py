"""Which files the workers' libraries consist of, and who is concerned when some of them change: for ``run --dev``.

Found by reading, never by importing: a library is its top package, or its one file, and what
lies beside it that it imports, directly or not. So a module that several workers share concerns
each of them, and what pip has installed elsewhere nobody. Only ``_dev`` uses this room.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable
from typing import Final

from bgworker.tui.words import clean

#: What a change of makes a worker old.
SUFFIXES: Final = (".py", ".so", ".pyd")
#: Where pip installs: what lies beside a library there is another's.
_INSTALLED: Final = ("site-packages", "dist-packages")
#: Files of one library that are looked at: a library is not a disk.
_MOST_FILES: Final = 5000


def files_of(path: str) -> set[str]:
    """Return the files that a library is made of: those of its package or module, and of what it imports from beside it."""
    root = os.path.dirname(path)
    found: set[str] = set()
    pending, seen = [path], {path}
    while pending and len(found) < _MOST_FILES:
        for file in _files(pending.pop()):
            found.add(file)
            for name in () if os.path.basename(root) in _INSTALLED else _imported(file):
                for other in (os.path.join(root, name), os.path.join(root, f"{name}.py")):
                    if other not in seen and os.path.exists(other):
                        seen.add(other)
                        pending.append(other)
    return found


def directories_of(path: str) -> set[str]:
    """Return the directories in which a change may concern a library, one that brings a new file too."""
    folders = {path} if os.path.isdir(path) else set()
    return folders | {os.path.dirname(file) for file in files_of(path)}


def concerned(paths: dict[str, str], changed: Iterable[str]) -> set[str]:
    """Return who is concerned by a change of files.

    Args:
        paths: The package or file of each library, by whatever it is known as.
        changed: Paths of files; some may be gone.
    """
    changed = set(changed)
    files = {path: files_of(path) for path in set(paths.values())}
    return {
        name
        for name, path in paths.items()
        # A file that is gone is none of its files any more, but lay in its package.
        if files[path] & changed or any(each == path or each.startswith(path + os.sep) for each in changed)
    }


def syntax_problem(path: str) -> str:
    """Return what is wrong with a Python file, with the line, as one line of text; nothing if it parses, or is gone."""
    if not path.endswith(".py"):
        return ""
    try:
        with open(path, "rb") as file:
            source = file.read()
        ast.parse(source, path)
    except FileNotFoundError:
        return ""
    except SyntaxError as error:
        return f'file "{clean(path)}", line {error.lineno or 1}: {clean(error.msg)}'
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        return f'file "{clean(path)}": {clean(error)}'
    return ""


def _files(path: str) -> list[str]:
    if os.path.isfile(path):
        return [path]
    found: list[str] = []
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
        found += [os.path.join(folder, name) for name in sorted(names) if name.endswith(SUFFIXES)]
        if len(found) > _MOST_FILES:
            break
    return found


def _imported(path: str) -> set[str]:
    """Return the top names that a file imports; none of one that cannot be read, which says so elsewhere."""
    if not path.endswith(".py"):
        return set()
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        # A relative import leads to the package itself.
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names
