"""Objects that nobody counts: what the loader holds for ever, its clones share for good.

A clone shares its memory with the loader until it writes, and Python writes to whatever it
looks at: the count of references is in the object. Since Python 3.12 there are objects whose
count stays as it is (PEP 683: None, small numbers, the types of C), made so that processes
which are cloned share them. What a loader has imported lives as long as its clones do, so it
is made one of them: the private memory of a worker falls by four in ten, and births with it.

Python has no call for this. The word that holds the count is at the same place in every
object of a release build with the lock; it is given the value that it has in None. Only the
versions that this was tried with do it, and only after a trial on an object of its own;
everywhere else nothing happens, and a worker has more pages of its own.

What changes for a worker: an object that was made at import, and that the last reference
goes away from, is not freed. Objects with a finalizer (files, sockets, generators, what
defines ``__del__``) are left as they are.

Imported by the loader alone, which calls it before it clones anything.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import sysconfig
from types import CodeType, FrameType
from typing import Any, Final

_TRIED: Final = ((3, 12), (3, 13))
_count_at: Final = ctypes.c_ssize_t.from_address


def is_possible() -> bool:
    """Whether this interpreter is one of those that objects can be made immortal in."""
    is_known = sys.implementation.name == "cpython" and sys.version_info[:2] in _TRIED
    # Without the lock, and in a build that keeps books about references, the count is kept otherwise.
    if not is_known or sysconfig.get_config_var("Py_GIL_DISABLED") or hasattr(sys, "gettotalrefcount"):
        return False
    subject = [object()]
    _make_immortal(subject, _count_at(id(None)).value)
    more = subject * 100
    is_uncounted = sys.getrefcount(subject[0]) == sys.getrefcount(None)
    del more
    return is_uncounted and sys.getrefcount(subject[0]) == sys.getrefcount(None)


def keep_everything() -> int:
    """Make every object that can be found immortal; return how many there are, 0 where it is not possible."""
    if not is_possible():
        return 0
    found = _find()
    _make_immortal(found, _count_at(id(None)).value)
    return len(found)


def _find() -> list[Any]:
    """Return what the collector knows and everything that leads on from there, but for what has a finalizer."""
    found: list[Any] = []
    seen: set[int] = {id(found)}
    seen.add(id(seen))
    finalized: dict[type, bool] = {FrameType: True}
    next_ones = gc.get_objects()
    seen.add(id(finalized))
    while next_ones:
        new = []
        for each in next_ones:
            if id(each) not in seen:
                seen.add(id(each))
                new.append(each)
        for each in new:
            kind = type(each)
            if kind not in finalized:
                finalized[kind] = any("__del__" in vars(base) for base in type.mro(kind))
            if not finalized[kind]:
                found.append(each)
        next_ones = gc.get_referents(*new)
        # The collector does not look into code.
        next_ones += [part for each in new if type(each) is CodeType for part in _parts(each)]
    return found


def _parts(code: CodeType) -> tuple[Any, ...]:
    return (
        code.co_consts, code.co_names, code.co_name, code.co_qualname, code.co_filename, code.co_linetable, code.co_exceptiontable,
    )  # fmt: skip


def _make_immortal(objects: list[Any], value: int) -> None:
    for each in objects:
        _count_at(id(each)).value = value
