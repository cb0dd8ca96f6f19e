"""Code that nobody counts: what it is, that all else is counted, and that nothing is done where it was never tried.

What is done cannot be undone, so each case is a process of its own, in every interpreter that is at hand.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

MODULE = Path(__file__).parents[3] / "host" / "bgworker" / "_loader" / "immortal.py"
#: The module alone: another interpreter has none of what the package needs.
HEAD = f"""
import gc, importlib.util, sys
spec = importlib.util.spec_from_file_location("immortal", {str(MODULE)!r})
immortal = importlib.util.module_from_spec(spec)
spec.loader.exec_module(immortal)
is_tried = sys.version_info[:2] in ((3, 12), (3, 13))
def is_immortal(thing): return sys.getrefcount(thing) == sys.getrefcount(None)
"""


def _interpreters() -> list[str]:
    found = {sys.executable: None}
    for minor in (11, 12, 13, 14):
        path = shutil.which(f"python3.{minor}")
        # A shim of a version manager is there also for versions that are not.
        if path is not None and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            found[path] = None
    return list(found)


@pytest.fixture(params=_interpreters(), ids=lambda path: Path(path).name)
def run(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return a way to run code after HEAD in one of the interpreters, which must end with 0 and without a word."""

    def run(code: str) -> None:
        done = subprocess.run([request.param, "-I", "-c", HEAD + code], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")

    return run


def test_code_is_not_counted(run: Callable[[str], None]) -> None:
    """Functions, their code with its constants, classes and modules; more references change nothing."""
    run(
        """
class Kept:
    def method(self, given=2.5, and_more="text"): return 12345.75, (7777777, b"bytes"), [lambda: 8888888]
def decorated(function): return lambda: function
made = immortal.keep_code()
assert (made > 1000) == is_tried, made
code = Kept.method.__code__
constants = [part for part in code.co_consts if part is not None and not isinstance(part, str)]
inner = [part for part in constants if hasattr(part, "co_consts")][0]
for thing in (Kept, Kept.__mro__, Kept.method, code, *constants, inner, inner.co_consts[-1], code.co_names, code.co_consts,
              Kept.method.__defaults__, decorated, immortal, vars(immortal), globals(), immortal._find):
    assert is_immortal(thing) == is_tried, thing
more = [Kept] * 1000
del more
assert is_immortal(Kept) == is_tried
del Kept
gc.collect()
""",
    )


def test_what_may_want_to_end_is_counted(run: Callable[[str], None]) -> None:
    """An instance that was made before, and all that it holds, ends with its last reference."""
    run(
        """
import os, tempfile, weakref
class Client:
    def __init__(self): self.file, self.seen = open(os.devnull), {"folder": [tempfile.TemporaryDirectory()]}
def end(): ended.append(1)
ended, client, text = [], Client(), "-".join(["a", "text"])
class Lazy:
    client = Client()
lazy, holder = weakref.ref(Lazy.client), (1, [Client()])
fd, folder, finalizer = client.file.fileno(), client.seen["folder"][0], weakref.finalize(client, end)
name = folder.name
del folder
immortal.keep_code()
gc.freeze()
assert not any(map(is_immortal, (client, client.__dict__, client.seen, text, Lazy.client, holder)))
for each in (client, holder[1][0]): each.seen["folder"][0].cleanup()
Lazy.client.seen["folder"][0].cleanup()
Lazy.client = None
del client
assert ended == [1] and lazy() is None and not os.path.exists(name)
try: os.fstat(fd)
except OSError: pass
else: raise AssertionError("it is open")
""",
    )


def test_no_code_of_a_plugin_is_run(run: Callable[[str], None]) -> None:
    """Classes whose own classes raise at whatever is asked of them, or answer wrongly, are kept like any other."""
    run(
        """
class Unhashable(type):
    def __eq__(self, other): raise ValueError("asked")
class Alike(type):
    def __hash__(self): return 7
    def __eq__(self, other): return True
class Reordered(type):
    def mro(cls): return [cls, object]
class Silent(type):
    def __getattribute__(self, name): raise ValueError("asked")
class Hidden(type):
    __dict__ = property(lambda self: 1 / 0)
    __mro__ = property(lambda self: 1 / 0)
class Lying:
    @property
    def __class__(self): raise ValueError("asked")
odd = [meta("odd", (), {}) for meta in (Unhashable, Alike, Reordered, Silent, Hidden)]
held = [type.__call__(each) for each in odd], Lying()
made = immortal.keep_code()
assert (made > 1000) == is_tried, made
assert all(is_immortal(each) == is_tried for each in odd)
""",
    )


def test_what_comes_later_is_counted(run: Callable[[str], None]) -> None:
    """Only what is there at the moment lives for ever."""
    run(
        """
import weakref
class Kept: pass
immortal.keep_code()
later = Kept()
end = weakref.ref(later)
del later
assert end() is None
""",
    )


def test_clones_end_as_before(run: Callable[[str], None]) -> None:
    """A process that goes through the interpreter's own end, cloned or not, ends with its code and says nothing."""
    run(
        """
import json, logging, os, threading
immortal.keep_code()
gc.freeze()
pid = os.fork()
if not pid:
    threading.Thread(target=json.dumps, args=({},)).start()
    gc.unfreeze()
    gc.collect()
    sys.exit(3)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
""",
    )


def test_nothing_happens_in_a_version_that_was_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that nobody has tried is left alone, whatever its objects look like."""
    from bgworker._loader import immortal

    monkeypatch.setattr(sys, "version_info", (3, 15, 0))
    assert not immortal.is_possible()
    assert immortal.keep_code() == 0
