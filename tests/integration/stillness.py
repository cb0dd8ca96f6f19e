"""Whether a process sleeps for good: how often the kernel has switched to it, and the wait for a time without any."""

from __future__ import annotations

import time

#: Longer than the period of anything that wakes up to look around, in seconds.
WINDOW = 0.5
#: How many windows are looked at: what a process does before it sleeps for good takes one of them, on a busy machine two.
_WINDOWS = 6


def switches(pid: int) -> int:
    """Return how often the kernel has switched away from a process, whoever asked for it."""
    with open(f"/proc/{pid}/status") as status:
        return sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)


def is_asleep(pid: int) -> bool:
    """Whether a process sleeps at this moment."""
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "S"


def wait_until_still(pid: int, window: float = WINDOW) -> None:
    """Wait for a time in which a process sleeps and runs not once; fail if it does so in each of a few.

    That it sleeps at one moment says little: a worker looks at its socket by itself for some milliseconds before it
    sleeps for good, and sleeps in between. Whoever wakes up with a period shorter than the window is awake in each.

    Args:
        pid: The process.
        window: Seconds; the property is about the passing of time.
    """
    counts = [switches(pid)]
    for _ in range(_WINDOWS):
        time.sleep(window)
        counts.append(switches(pid))
        # One that spins alone on a processor is not switched away from, but never sleeps.
        if counts[-1] == counts[-2] and is_asleep(pid):
            return
    raise AssertionError(f"process {pid} has run in each of {_WINDOWS} windows of {window} s: {counts} switches")
