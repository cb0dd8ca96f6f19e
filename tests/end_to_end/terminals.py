"""Commands on a pseudo-terminal, and what they write there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

import pytest

from bgworker.testing import DEADLINE, RunningHost

#: Makes standard input the controlling terminal, without which Ctrl-C is just a character, and executes the rest.
_ON_ITS_TERMINAL = "import os, sys; os.login_tty(0); os.execv(sys.argv[1], sys.argv[1:])"


class Terminal:
    """A command on a terminal of 80 by 24, and everything that it ever wrote."""

    def __init__(self, host: RunningHost, *arguments: str, size: tuple[int, int] = (80, 24), **environment: str) -> None:
        self.fd, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("BGWORKER_", "NO_COLOR", "COLUMNS"))}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _ON_ITS_TERMINAL, sys.executable, "-P", "-m", "bgworker", *arguments],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            cwd=host.directory,
            env={**inherited, "TERM": "xterm-256color", "BGWORKER_CONFIG": str(host.config_path), **environment},
        )
        os.close(inner)
        self.text = ""

    def _read(self, timeout: float) -> bool:
        """Take in what comes; False when the terminal has been left."""
        if not select.select([self.fd], [], [], timeout)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # EIO: nobody has it open any more
            return False
        self.text += data.decode("utf-8", "replace")
        return bool(data)

    def wait_for(self, pattern: str) -> str:
        """Wait until the pattern has been written since the last such wait; return what matched and forget what was before."""
        deadline = time.monotonic() + DEADLINE
        while (match := re.search(pattern, self.text)) is None:
            if time.monotonic() > deadline or not self._read(0.5):
                pytest.fail(f"waited in vain for {pattern!r} in {self.text[-3000:]!r}")
        self.text = self.text[match.end() :]
        return match[0]

    def type(self, keys: str) -> None:
        """Type."""
        os.write(self.fd, keys.encode())

    def wait(self) -> int:
        """Take in the rest and return the exit code."""
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline and self._read(0.5) and self.process.poll() is None:
            pass
        code = self.process.wait(timeout=DEADLINE)
        while self._read(0.0) and select.select([self.fd], [], [], 0)[0]:
            pass
        return code

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        os.close(self.fd)
