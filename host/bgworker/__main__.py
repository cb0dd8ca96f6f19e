"""``python -m bgworker``: the same as the command ``bgworker``, without the current directory among the places of modules."""

from __future__ import annotations

import os
import sys

# ``-m`` puts the current directory first: what lies there would be imported in the place of a library, by a host that
# may be root's. A worker's own modules are found through python_path.
if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
    del sys.path[0]

from bgworker.cli import main

if __name__ == "__main__":
    sys.exit(main())
