"""Kills the process that imports it with a segmentation fault."""

import ctypes

ctypes.string_at(0)
