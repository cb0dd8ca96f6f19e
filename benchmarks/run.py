"""One run: which ways take part, their directories, and what becomes of one that fails.

A way that is missing, does not come up, or goes wrong in the middle of a question is named with
the reason and left out from then on in that question; the run goes on. Whatever happens, each
way is ended and its directory removed.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from benchmarks.beacon import Beacon
from benchmarks.peers import WAYS
from benchmarks.peers.way import Way

#: Seconds of a question after which whole ways are left out of what is left of it.
_LATE: Final = 150.0
#: A peer may fail in any manner, and never ends the run; the host under test fails as it does in a test.
FAILURES: Final = (Exception, pytest.fail.Exception)
#: Rounds that are thrown away.
WARM_UP: Final = 2
#: Seconds of a question after which it begins no further round; the first round is always whole.
_PATIENCE: Final = 40.0
#: Samples that every way gives, however slow it is.
_FEWEST_SAMPLES: Final = 3


class Run:
    """The setting of all questions.

    Args:
        quick: Fewer and shorter rounds, no peers.
        names: Ways to compare; all when empty.
    """

    def __init__(self, *, quick: bool = False, names: Sequence[str] = ()) -> None:
        self.quick = quick
        self.directory = Path(tempfile.mkdtemp(prefix="bgworker-bench-"))
        self.directory.chmod(0o711)
        self.question = ""
        self._asked_at = time.monotonic()
        #: What did not take part and why, as "question: way: reason" lines.
        self.skipped: list[str] = []
        self.kinds: list[type[Way]] = []
        self._made = 0
        for kind in WAYS:
            if (names and kind.name not in names) or (quick and kind.name not in ("bgworker", "raw fork")):
                continue
            if why := kind.missing():
                self.skip(kind.name, why)
            else:
                self.kinds.append(kind)

    def ask(self, question: str) -> None:
        """Begin a question."""
        self.question = question
        self._asked_at = time.monotonic()
        self.say(f"{question} ...")

    @property
    def seconds(self) -> float:
        """How long the question has taken so far."""
        return time.monotonic() - self._asked_at

    @property
    def is_late(self) -> bool:
        """Whether the question has taken so long that what can be left out should be."""
        return self.seconds > _LATE

    def rounds(self, count: int) -> Iterator[int]:
        """Count rounds, and end early on a machine that is slow."""
        for number in range(count):
            if number and self.seconds > _PATIENCE:
                return
            yield number

    def close(self) -> None:
        """Remove what is left on disk."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def say(self, text: str) -> None:
        """Tell whoever watches."""
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - the command's output

    def skip(self, way: str, why: str) -> None:
        """Note that a way does not take part."""
        line = f"{self.question}: {way}: {why}".removeprefix(": ")
        self.skipped.append(line)
        self.say(f"  skipped {line}")

    @contextmanager
    def guarded(self, way: str) -> Iterator[None]:
        """Turn whatever goes wrong with a way into a line."""
        try:
            yield
        except FAILURES as error:
            self.skip(way, f"{type(error).__name__}: {error}"[:400])

    @contextmanager
    def made(self, kind: type[Way], static: int = 0, dynamic: int = 0) -> Iterator[Way]:
        """Prepare a way without starting it; end it at the end."""
        self._made += 1
        # Short: a socket's path below it has 107 bytes.
        directory = self.directory / f"{self._made}"
        directory.mkdir()
        try:
            with Beacon(directory / "beacon") as beacon:
                way = kind(directory, beacon)
                try:
                    way.prepare(static, dynamic)
                    yield way
                finally:
                    way.close()
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    @contextmanager
    def up(self, kind: type[Way], static: int = 0, dynamic: int = 0) -> Iterator[Way]:
        """Start a way and wait until it takes calls."""
        with self.made(kind, static, dynamic) as way:
            way.spawn()
            way.await_ready()
            yield way

    @contextmanager
    def fleet(self, kinds: Sequence[type[Way]], dynamic: int, begin: Callable[[Way], None] | None = None) -> Iterator[list[Way]]:
        """Start several ways beside each other; those that fail are left out. ``begin`` is done with each that is up."""
        with ExitStack() as stack:
            ways: list[Way] = []
            for kind in kinds:
                with self.guarded(kind.name), ExitStack() as own:
                    way = own.enter_context(self.up(kind, 0, dynamic))
                    if begin is not None:
                        begin(way)
                    stack.push(_Closing(own.pop_all(), self, kind.name))
                    ways.append(way)
            yield ways

    def alternate(
        self, ways: list[Way], sample: Callable[[Way, int], None], rounds: int, *, warm_up: int = WARM_UP, budget: float = 5.0
    ) -> None:
        """Take samples of each way in turn, round after round.

        Args:
            ways: Those that fail are taken out.
            sample: Gets the way and the round, which is negative while warming up.
            rounds: That count.
            warm_up: That do not.
            budget: Seconds after which a slow way rests, once it has given the fewest samples.
        """
        spent = dict.fromkeys(ways, 0.0)
        for number in range(-warm_up, rounds):
            for way in list(ways):
                if spent[way] > budget and number >= _FEWEST_SAMPLES:
                    continue
                begin = time.monotonic()
                try:
                    sample(way, number)
                except FAILURES as error:  # it is not asked again
                    self.skip(way.name, f"{type(error).__name__}: {error}"[:400])
                    ways.remove(way)
                spent[way] += time.monotonic() - begin


class _Closing:
    """Closes a stack, and names the way if that fails."""

    def __init__(self, stack: ExitStack, run: Run, name: str) -> None:
        self._stack = stack
        self._run = run
        self._name = name

    def __enter__(self) -> None:
        """Nothing: it has been entered."""

    def __exit__(self, *_: object) -> None:
        with self._run.guarded(self._name):
            self._stack.close()
