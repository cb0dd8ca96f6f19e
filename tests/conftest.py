"""What all tests share."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

# A shell has what it runs in the background ignore Ctrl-C, and so would every process of the tests.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Continuous integration tries the same examples each time: what it refuses is then a change's own doing. By hand, and in
# any run without CI in the environment, the examples are new ones; a counterexample found there gets a test of its own.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
