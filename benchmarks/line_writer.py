"""Prints so many lines of 100 bytes as fast as it can: a program for peers, built-in modules only.

line_writer.py BEACON NUMBER LINES
"""

from __future__ import annotations

import sys
import time


def main() -> None:
    """Report, print, sleep."""
    path, number, lines = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    import os

    fd = os.open(path, os.O_WRONLY)
    os.write(fd, b"%d %d %d\n" % (number, time.monotonic_ns(), os.getpid()))
    os.close(fd)
    tail = "x" * 89
    for first in range(0, lines, 1000):
        sys.stdout.write("".join(f"{number:09} {tail}\n" for number in range(first, min(first + 1000, lines))))
    sys.stdout.flush()
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
