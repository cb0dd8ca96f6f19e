"""Ends the process that imports it, past every guard."""

import os

os._exit(0)
