"""The worker that peers execute: it writes one line to the beacon and sleeps; built-in modules only, as it runs with -S."""

import time

BEGAN = time.monotonic_ns()

import _signal  # type: ignore[import-not-found]  # noqa: E402 - signal.py costs ten modules
import posix  # noqa: E402
import sys  # noqa: E402


def main() -> None:
    """Report, then wait for a signal."""
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # pm2 stops with it
    fd = posix.open(sys.argv[1], posix.O_WRONLY)
    number = sum(map(int, sys.argv[2:]))  # circus counts its processes from 1: a second figure is added
    posix.write(fd, b"%d %d %d\n" % (number, BEGAN, posix.getpid()))
    posix.close(fd)
    while True:
        _signal.pause()


main()
