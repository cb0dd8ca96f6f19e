"""``python -m bgworker._worker``: a blank worker in an interpreter of its own, executed by the loader.

Not for people: it needs the descriptors that the loader hands down.
"""

from __future__ import annotations

import sys
from typing import Final

from bgworker._worker.main import Boot, run

_OPTIONS: Final = ("--channel", "--lifeline", "--slot-table", "--activity")


def main() -> None:
    """Read the descriptors' numbers and become a blank worker."""
    # No argparse: importing it costs a third of the start of a worker.
    arguments = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=False))
    if sorted(arguments) != sorted(_OPTIONS) or not all(number.isdigit() for number in arguments.values()):
        sys.stderr.write("ERROR:  bgworker._worker is started by the host, with the descriptors of a worker\n")
        sys.exit(2)
    channel_fd, lifeline_fd, slot_table_fd, activity_fd = (int(arguments[option]) for option in _OPTIONS)
    run(Boot(channel_fd, lifeline_fd, slot_table_fd, activity_fd))


if __name__ == "__main__":
    main()
