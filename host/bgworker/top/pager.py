"""A worker's whole log in a pager, with the screen given back to it meanwhile."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from bgworker._logs import read_lines
from bgworker._text import printable
from bgworker.errors import HostError


def show_in_pager(data_directory: str, names: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run PAGER, else less, else more, on all that was written, and return when it has ended.

    Args:
        data_directory: Absolute path.
        names: As for ``bgworker logs``.
        environment: The pager's.

    Raises:
        HostError: There is no pager, or the logs cannot be read.
    """
    command = _command(environment)
    try:
        pager = subprocess.Popen(command, stdin=subprocess.PIPE, env=dict(environment))
    except OSError as error:
        raise HostError(
            f'could not run pager "{printable(command[0])}": {error.strerror}', message_hint="Name another one with PAGER."
        ) from None
    assert pager.stdin is not None
    try:
        for line in read_lines(data_directory, names):
            pager.stdin.write("\n".join(map(printable, line.split("\n"))).encode("utf-8", "replace") + b"\n")
    except BrokenPipeError:  # it was left before the end
        pass
    finally:
        try:
            pager.stdin.close()
        except BrokenPipeError:
            pass
        _wait(pager)


def _wait(pager: subprocess.Popen[bytes]) -> None:
    while True:
        try:
            pager.wait()
        except KeyboardInterrupt:  # Ctrl-C is the pager's
            continue
        return


def _command(environment: Mapping[str, str]) -> list[str]:
    try:
        command = shlex.split(environment.get("PAGER", ""))
    except ValueError:  # an open quote
        command = [environment["PAGER"]]
    if not command:
        found = next((name for name in ("less", "more") if shutil.which(name, path=environment.get("PATH"))), None)
        if found is None:
            raise HostError("there is no pager", message_hint="Name one with PAGER.")
        command = [found]
    # The end is what somebody wants to see first.
    return [*command, "+G"] if os.path.basename(command[0]) == "less" else command
