"""The program ``python -m bgworker._database``; the host executes it, nobody imports it."""

from __future__ import annotations

import sys

from bgworker._database.process import DatabaseProcess
from bgworker._process.helper import setup


def main() -> int:
    """Serve the host until it says stop, closes the channel or dies."""
    channel = setup("database")
    DatabaseProcess(channel).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
