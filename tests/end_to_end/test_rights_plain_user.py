"""control_group of a host that is not root's: each right, tried by another user, and what only the owner and root may."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bgworker.testing import RunningHost
from tests.end_to_end.other_user import NOBODY, ask_as, environment_for_others, needs_root, reachable_python, some_group
from tests.end_to_end.test_rights import NEW, OPERATIONS, OWNERS, TASKS, VICTIM, VIEWS, outcomes

#: A user with no account: a member of the group by its process alone.
MEMBER = 54321
STRANGER = 54322

MakePlainHost = Callable[..., RunningHost]

pytestmark = needs_root


@pytest.fixture
def plain_host() -> Iterator[MakePlainHost]:
    """Return a maker of hosts that run as nobody, who is in the group or not, and give it these rights."""
    base = Path(tempfile.mkdtemp(prefix="bgworker-test-"))
    base.chmod(0o755)
    os.chown(base, NOBODY, NOBODY)
    hosts: list[RunningHost] = []
    environment = environment_for_others()
    probe = [reachable_python(), "-c", "import bgworker, click, msgspec"]
    if subprocess.run(probe, user=NOBODY, group=NOBODY, env=environment, cwd="/", capture_output=True, check=False).returncode:
        pytest.skip("another user may not read the package")

    def make(*rights: str, is_in_group: bool = True) -> RunningHost:
        entry = some_group()
        allowed = ", ".join(f'"{right}"' for right in rights)
        head = f'[host]\nmax_worker_processes = 8\ncontrol_group = "{entry.gr_name}"\ncontrol_allow = [{allowed}]\n'
        directory = base / str(len(hosts))
        directory.mkdir(mode=0o755)
        os.chown(directory, NOBODY, NOBODY)
        (directory / "tasks.py").write_text(TASKS)
        host = RunningHost(directory, head + VICTIM)
        hosts.append(host)
        with host.output.open("ab") as output:
            host.process = subprocess.Popen(
                [reachable_python(), "-P", "-m", "bgworker", "run", "-c", str(host.config_path)],
                user=NOBODY, group=NOBODY, extra_groups=[entry.gr_gid] if is_in_group else [], env=environment,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", start_new_session=True,
            )  # fmt: skip
        return host

    yield make
    for host in hosts:
        host.close()
    shutil.rmtree(base)


def ask_as_member(host: RunningHost, *requests: tuple[str, dict[str, Any]]) -> list[str]:
    """Ask as another user who is in the group."""
    return outcomes(ask_as(host, *requests, uid=MEMBER, gid=MEMBER, groups=(some_group().gr_gid,)))


EVERYTHING = [("ping", {}), *VIEWS, *OPERATIONS, ("register", {"worker": NEW}), *OWNERS[:3]]


@pytest.mark.parametrize(
    ("right", "number"),
    # What the rights are is tried with a host of root's, too; the host's own user is what differs here.
    [
        pytest.param(None, 1, marks=pytest.mark.slow),
        pytest.param("view", 1 + len(VIEWS), marks=pytest.mark.slow),
        ("operate", 1 + len(VIEWS) + len(OPERATIONS)),
    ],
)
def test_each_right(plain_host: MakePlainHost, right: str | None, number: int) -> None:
    """T49: of all methods, a member of another uid may call just those of its right; `stop` is not among them."""
    host = plain_host(*([right] if right else []))
    host.wait_for_worker("victim")
    assert ask_as_member(host, *EVERYTHING) == ["done"] * number + ["permission_denied"] * (len(EVERYTHING) - number)


def test_right_to_register(plain_host: MakePlainHost) -> None:
    """T49: `register:LIBRARY:FUNCTION` registers that one alone; it runs as the host's user, and is the member's to stop."""
    host = plain_host("register:tasks:idle")
    host.wait_for_worker("victim")
    assert ask_as_member(host, ("register", {"worker": {**NEW, "bgw_function_name": "other"}})) == ["permission_denied"]
    # Its failure would stop the host, which is not a member's to do.
    assert ask_as_member(host, ("register", {"worker": {**NEW, "essential": True}})) == ["permission_denied"]
    assert ask_as_member(host, ("register", {"worker": NEW}), ("wait", {"handle": "HANDLE", "for": "startup"})) == ["done"] * 2
    pid = host.wait_for_worker("new")["pid"]
    assert Path(f"/proc/{pid}").stat().st_uid in (0, NOBODY)  # root's if it is not to be looked into
    assert f"Uid:\t{NOBODY}\t{NOBODY}" in Path(f"/proc/{pid}/status").read_text()
    # Over another connection it is somebody else's.
    assert ask_as_member(host, ("terminate", {"name": "new"}), *VIEWS) == ["permission_denied"] * (1 + len(VIEWS))


def test_owner_root_and_strangers(plain_host: MakePlainHost) -> None:
    """T49: the host's user and root may do everything; who is not in the group does not reach the socket, nor is it let in."""
    host = plain_host("view", "operate", "register")
    host.wait_for_worker("victim")
    gid = some_group().gr_gid
    data, socket = host.data_directory, host.data_directory / "run" / "control.sock"
    for path, mode in ((data, 0o710), (data / "run", 0o710), (socket, 0o660)):
        found = path.stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (NOBODY, gid, mode)
    assert ask_as(host, ("ping", {}), uid=STRANGER, gid=STRANGER)[0]["error"]["code"] == "oserror"
    # An owner who opens all doors still does not let strangers in: the host asks the kernel who they are.
    for path, mode in ((data, 0o711), (data / "run", 0o711), (socket, 0o666)):
        path.chmod(mode)
    assert ask_as(host, ("ping", {}), uid=STRANGER, gid=STRANGER)[0]["error"]["code"] == "permission_denied"
    for uid in (NOBODY, 0):
        assert outcomes(ask_as(host, ("ping", {}), ("status", {}), ("terminate", {"name": "victim"}), uid=uid, gid=uid))[:2] == [
            "done", "done"
        ]  # fmt: skip
    assert outcomes(ask_as(host, ("stop", {}), uid=MEMBER, gid=gid)) == ["permission_denied"]
    assert outcomes(ask_as(host, ("stop", {}), uid=NOBODY)) == ["done"]
    assert host.process is not None
    assert host.process.wait(timeout=30) == 0


def test_socket_that_is_made_again_is_the_groups(plain_host: MakePlainHost) -> None:
    """T52: made again by a host that is not root, the socket and its directory let the group in as before, and nobody else."""
    host = plain_host("view")
    host.wait_for_worker("victim")
    run = host.data_directory / "run"
    run.rename(host.data_directory / "gone")
    host.wait_until(lambda: (run / "control.sock").exists(), "it is there again")
    host.wait_until(lambda: ask_as_member(host, *VIEWS) == ["done"] * len(VIEWS), "members may connect")
    assert ask_as(host, ("ping", {}), uid=STRANGER, gid=STRANGER)[0]["error"]["code"] == "oserror"


def test_group_that_the_host_is_not_in(plain_host: MakePlainHost) -> None:
    """A user who is not in the group cannot give it anything: that is an error of one line, and no host starts."""
    host = plain_host("view", is_in_group=False)
    assert host.process is not None
    assert host.process.wait(timeout=30) == 2
    assert "to [host] control_group: permission denied" in host.output.read_text()


def test_no_other_process_of_the_user_reads_the_hosts_memory(plain_host: MakePlainHost) -> None:
    """A worker, or whatever else runs as the host's user, can neither read nor write the host's memory, nor see its environment.

    Not either when the host has executed itself anew.
    """
    host = plain_host("view")
    host.wait_for_worker("victim")
    assert host.process is not None
    script = (
        "import sys\nfor name in ('mem', 'environ', 'maps'):\n    try:\n        open(f'/proc/{sys.argv[1]}/{name}', 'rb').read(1)\n"
        "    except PermissionError:\n        continue\n    print('could read', name)\n"
        "try:\n    open(f'/proc/{sys.argv[1]}/mem', 'r+b')\nexcept PermissionError:\n    pass\nelse:\n    print('could write')\n"
    )
    for _ in range(2):
        done = subprocess.run(
            [reachable_python(), "-c", script, str(host.process.pid)],
            user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout == ""
        with host.client() as client:
            client.reexec()
