"""The C library, for the system calls that Python does not have. A leaf."""

from __future__ import annotations

import ctypes
import os
from typing import Final

libc: Final = ctypes.CDLL(None, use_errno=True)


def checked(result: int) -> int:
    """Return what a call of ``libc`` returned.

    Raises:
        OSError: It has failed.
    """
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
