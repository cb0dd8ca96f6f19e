"""What all tests share."""

from __future__ import annotations

import os

from hypothesis import settings

# Continuous integration tries the same examples each time: what it refuses is then a change's own doing. By hand, and in
# any run without CI in the environment, the examples are new ones; a counterexample found there gets a test of its own.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
