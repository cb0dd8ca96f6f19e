"""``python -m bgworker``: the same as the command ``bgworker``."""

from __future__ import annotations

import sys

from bgworker.cli import main

if __name__ == "__main__":
    sys.exit(main())
