"""How long to wait before the next try: exponential, bounded, with jitter. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Delays that double from ``first`` to ``limit``.

    Args:
        first: The first delay in seconds.
        limit: The longest one, jitter aside.
        jitter: Part of each delay that chance adds or takes away, so that many hosts do not return in step.
        draw: Gives numbers from 0 to 1.
    """

    def __init__(self, first: float, limit: float, jitter: float = 0.2, draw: Callable[[], float] = random.random) -> None:
        self._first = first
        self._limit = limit
        self._jitter = jitter
        self._draw = draw
        #: Delays given since the last success.
        self.failures = 0

    def next(self) -> float:
        """Count one failure and return the delay before the next try."""
        # The exponent is bounded: a server may be away for months.
        delay = min(self._limit, self._first * 2.0 ** min(self.failures, 60))
        self.failures += 1
        return delay * (1.0 + self._jitter * (2.0 * self._draw() - 1.0))

    def reset(self) -> None:
        """Start over after a success."""
        self.failures = 0
