"""Code that nobody counts: functions, classes and modules that the loader holds stay shared with its clones.

A clone shares its memory with the loader until it writes, and Python writes to whatever it
looks at: the count of references is in the object. Since Python 3.12 there are objects whose
count stays as it is (PEP 683: None, small numbers, the types of C), made so that processes
which are cloned share them. What a loader has imported lives as long as its clones do, so its
code is made one of them: a worker has a third less memory of its own, and is born sooner.

Python has no call for this. The word that holds the count is at the same place in every
object of a release build with the lock; it is given the value that it has in None. Only the
versions that this was tried with do it, and only after a trial on an object of its own;
everywhere else nothing happens, and a worker has more pages of its own.

Code and constants alone, because a worker cannot tell: nobody waits for the end of a
function. Instances and their containers are counted as ever, so that a connection which was
made at import is closed when the worker lets go of it. Texts are counted, too: whether one is
immortal is also written down elsewhere (the table of interned strings), and it is few pages.

Nothing here may run a plugin's code, not even the ``__hash__`` of a metaclass: types are
compared by identity, and attributes are asked of builtin types only.

Imported by the loader alone, which calls it before it clones anything.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import sysconfig
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, Final

_TRIED: Final = ((3, 12), (3, 13))
_count_at: Final = ctypes.c_ssize_t.from_address
_mro_of: Final[Any] = vars(type)["__mro__"].__get__
_dict_of: Final[Any] = vars(ModuleType)["__dict__"].__get__

_CODE: Final = frozenset(
    map(id, (
        FunctionType, BuiltinFunctionType, ModuleType, property, staticmethod, classmethod, MethodDescriptorType,
        WrapperDescriptorType, GetSetDescriptorType, MemberDescriptorType, ClassMethodDescriptorType,
    ))
)  # fmt: skip
_CONSTANTS: Final = frozenset(map(id, (CodeType, int, float, complex, bytes)))


def is_possible() -> bool:
    """Whether this interpreter is one of those that objects can be made immortal in."""
    is_known = sys.implementation.name == "cpython" and sys.version_info[:2] in _TRIED
    # Without the lock, and in a build that keeps books about references, the count is kept otherwise.
    if not is_known or sysconfig.get_config_var("Py_GIL_DISABLED") or hasattr(sys, "gettotalrefcount"):
        return False
    subject = [object()]
    _make_immortal(subject)
    more = subject * 100
    is_uncounted = sys.getrefcount(subject[0]) == sys.getrefcount(None)
    del more
    return is_uncounted and sys.getrefcount(subject[0]) == sys.getrefcount(None)


def keep_code() -> int:
    """Make the code that is in memory immortal; return of how many objects it consists, 0 where it is not possible."""
    if not is_possible():
        return 0
    found = _find()
    _make_immortal(found)
    return len(found)


def _find() -> list[Any]:
    """Return all functions, classes and modules, and what belongs to each of them alone."""
    kinds: dict[int, bool] = {}
    todo = []
    for each in gc.get_objects():
        kind = type(each)
        if id(kind) not in kinds:
            kinds[id(kind)] = id(kind) in _CODE or any(base is type for base in _mro_of(kind))
        if kinds[id(kind)]:
            todo.append(each)
    found: dict[int, Any] = {}
    while todo:
        each = todo.pop()
        if id(each) not in found:
            found[id(each)] = each
            todo += _belongings(each)
    return list(found.values())


def _belongings(owner: Any) -> list[Any]:
    """Return what the collector does not know, or does not know as code: constants, and the tables of names."""
    kind = type(owner)
    if kind is FunctionType:
        return [owner.__code__, owner.__globals__, *_tuples(owner.__defaults__)]
    if kind is CodeType:
        constants = [part for part in owner.co_consts if id(type(part)) in _CONSTANTS]
        return [owner.co_names, owner.co_consts, *constants, *(part for each in owner.co_consts for part in _tuples(each))]
    if kind is ModuleType:
        return [_dict_of(owner)]
    if any(base is type for base in _mro_of(kind)):
        return [_mro_of(owner)]
    return []


def _tuples(constant: Any) -> list[Any]:
    """Return a tuple of constants as the only one; nothing if it is none, or holds what may want to end."""
    is_constant = type(constant) is tuple and all(id(type(part)) in _CONSTANTS or type(part) is str for part in constant)
    return [constant] if is_constant else []


def _make_immortal(objects: list[Any]) -> None:
    value = _count_at(id(None)).value
    for each in objects:
        _count_at(id(each)).value = value
