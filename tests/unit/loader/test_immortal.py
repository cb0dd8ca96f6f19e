"""Objects that nobody counts: which they are, that they stay, and that nothing is done where it was never tried.

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


def test_what_is_held_is_not_counted(run: Callable[[str], None]) -> None:
    """Functions, their code with its constants, classes, texts and what holds them; more references change nothing."""
    run(
        """
class Kept:
    text = "-".join(["a", "text"])
    held = {"key": [1.5, (2.5, "x" * 3)]}
    def method(self): return "const" + "ant", 12345.75
kept = Kept()
made = immortal.keep_everything()
assert (made > 1000) == is_tried, made
for thing in (Kept, kept, Kept.text, Kept.held, Kept.held["key"], Kept.held["key"][1], Kept.method, Kept.method.__code__,
              Kept.method.__code__.co_consts, Kept.method.__code__.co_consts[-1], immortal, sys.modules):
    assert is_immortal(thing) == is_tried, thing
more = [Kept.text] * 1000
del more
assert is_immortal(Kept.text) == is_tried
del kept, Kept
gc.collect()
""",
    )


def test_what_has_a_finalizer_is_left(run: Callable[[str], None]) -> None:
    """What must be told of its end is: a file, a generator, an object with __del__, whatever it is held by."""
    run(
        """
import os
ended = []
class Ending:
    def __del__(self): ended.append(1)
class Below(Ending): pass
def generate():
    try: yield
    finally: ended.append(2)
read_fd, write_fd = os.pipe()
held = {"below": Below(), "file": open(write_fd, "w"), "generator": generate()}
next(held["generator"])
immortal.keep_everything()
gc.freeze()
held.clear()
assert ended == [1, 2], ended
assert os.read(read_fd, 1) == b""
""",
    )


def test_what_comes_later_is_counted(run: Callable[[str], None]) -> None:
    """Only what is there at the moment lives for ever."""
    run(
        """
import weakref
class Kept: pass
immortal.keep_everything()
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
immortal.keep_everything()
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
    assert immortal.keep_everything() == 0
