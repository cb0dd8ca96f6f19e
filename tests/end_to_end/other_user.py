"""Runs things as another user of this system, for tests that root starts."""

from __future__ import annotations

import grp
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bgworker.testing import DEADLINE, RunningHost

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")

#: The user that has no rights anywhere.
NOBODY = 65534
#: A client without any of our code: it must run as a user who may not read our files.
_CLIENT = """
import json, socket, sys
host = socket.socket(socket.AF_UNIX)
host.settimeout(20)
try:
    host.connect(sys.argv[1])
except OSError as error:
    print(json.dumps([{"error": {"code": "oserror", "message_primary": str(error)}}]))
    sys.exit()
data, fds, _, _ = socket.recv_fds(host, 65536, 4)
lines = host.makefile("rw", encoding="utf-8", newline="\\n")
replies, handle = [json.loads(data)], ""
if "error" not in replies[0]:
    for number, (method, params) in enumerate(json.loads(sys.argv[2])):
        params = {key: handle if value == "HANDLE" else value for key, value in params.items()}
        lines.write(json.dumps({"id": number, "method": method, "params": params}) + "\\n")
        lines.flush()
        while "id" not in (reply := json.loads(lines.readline())):
            pass
        handle = (reply.get("result") or {}).get("handle", handle)
        replies.append(reply)
print(json.dumps(replies))
"""


def some_group() -> grp.struct_group:
    """Return a group of this system that is nobody's and root's own."""
    return next(entry for entry in grp.getgrall() if entry.gr_gid not in (0, NOBODY))


@cache
def reachable_python() -> str:
    """Return an interpreter that every user may run, of our own version if there is one; skips the test without one."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/python{here}", f"/usr/local/bin/python{here}"):
        if not os.path.exists(candidate):
            continue
        try:
            done = subprocess.run(
                [candidate, "-c", "import decimal"],
                user=NOBODY,
                group=NOBODY,
                extra_groups=[],
                cwd="/",
                capture_output=True,
                check=False,
            )
        except OSError:
            continue
        if done.returncode == 0:
            return candidate
    pytest.skip("no interpreter that another user may run")


def ask_as(
    host: RunningHost, *requests: tuple[str, dict[str, Any]], gid: int = NOBODY, groups: tuple[int, ...] = (), uid: int = NOBODY
) -> list[dict[str, Any]]:
    """Ask the host as this user over one connection; return the greeting and the replies. "HANDLE" is the last handle given."""
    socket_path = str(host.data_directory / "run" / "control.sock")
    done = subprocess.run(
        [reachable_python(), "-c", _CLIENT, socket_path, json.dumps(requests)],
        user=uid,
        group=gid,
        extra_groups=list(groups),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    replies: list[dict[str, Any]] = json.loads(done.stdout)
    return replies


def environment_for_others() -> dict[str, str]:
    """Return an environment in which ``reachable_python`` finds our package and what it needs."""
    import click

    import bgworker

    paths = [str(Path(module.__file__).parents[1]) for module in (bgworker, click)]
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("BGWORKER_")}
    return {**inherited, "PYTHONPATH": os.pathsep.join(paths)}
