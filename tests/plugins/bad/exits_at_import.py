"""Ends the process that imports it, as a script with a main part does."""

import sys

sys.exit(0)
