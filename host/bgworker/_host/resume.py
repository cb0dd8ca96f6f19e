"""``python -m bgworker._host.resume``: the host that goes on where it executed itself, and the rehearsal of that.

The same process, so the same pid, children and locks; a new program with a state that it did not
live through. Until it turns its loop nothing is served, so nothing here waits. The rehearsal does
all of it but to begin, in a child that holds the same descriptors and ends without closing what
is not its own.

If it fails although the rehearsal went well, nobody is left who knows the workers: they are asked
to end, PostgreSQL is, and so does this process, with exit code 1. Imports only the standard
library until it is inside of what is caught. Only ``reexec`` starts this program.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from bgworker._host.callers import Caller
    from bgworker._host.host import Host

#: How long workers, and then PostgreSQL, get to end if all goes wrong, in seconds.
_LAST_PATIENCE: Final = 10.0
_LOOK_INTERVAL: Final = 0.02


def main() -> int:
    """Do as the arguments say; return the exit code."""
    # Nothing of what is made until the loop turns is garbage, and looking for some takes a tenth of the time.
    gc.disable()
    what, fd = sys.argv[1], int(sys.argv[2])
    if what == "--rehearse":
        rehearse(fd, int(sys.argv[3]))
    raw: dict[str, Any] = {}
    try:
        _close_to_others()
        raw = _read(fd)
        host = _go_on(raw)
    # Whatever it is: the workers would be killed with this process, and nobody told why.
    except BaseException as error:
        _give_up(raw, error)
        return 1
    from bgworker._host.life import live

    gc.enable()
    return live(host)


def rehearse(fd: int, parent: int) -> None:
    """Build the host of a state and say whether that went well, as the last line of standard output. Does not return."""
    code = 1
    try:
        from bgworker._process.prctl import set_pdeathsig

        _close_to_others()
        # It holds the host's locks and both ends of its lifeline: a host that is killed meanwhile must not live on in it.
        set_pdeathsig(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        from bgworker._host import reexec  # noqa: F401 - with it comes everything that the host is made of
        from bgworker._process import injection
        from bgworker._version import __version__

        injection.point("host.rehearse")
        _build(_read(fd))
        said, code = {"version": __version__}, 0
    except BaseException as error:
        import traceback

        said = {"error": f"{type(error).__name__}: {error}", "detail": traceback.format_exc()}
        if hasattr(error, "message_primary"):
            said["error"] = str(error.message_primary)
    sys.stdout.write(f"\n{json.dumps(said)}\n")
    sys.stdout.flush()
    # Nothing of what this process holds is its own: no destructor, no handler at exit may touch it.
    os._exit(code)


def _close_to_others() -> None:
    """Keep processes of the same user out of this one again, which execve(2) has let in."""
    from bgworker._process.prctl import set_dumpable

    set_dumpable(False)


def _read(fd: int) -> dict[str, Any]:
    try:
        with open(fd, "rb", closefd=False) as file:
            file.seek(0)
            found: dict[str, Any] = json.load(file)
    finally:
        os.close(fd)
    return found


def _build(raw: dict[str, Any]) -> tuple[Host, dict[str, Caller]]:
    """Return the host of a state, and its callers by their names in the document."""
    from bgworker._baggage import Baggage
    from bgworker._config.model import Configuration
    from bgworker._host import document
    from bgworker._host.data_directory import HostLocks
    from bgworker._host.host import Host
    from bgworker._host.rights import Access, member_grants

    state = document.check(raw)
    about = state["about"]
    settings, database = document.configuration_of(state)
    baggage = Baggage(state["descriptors"])
    access = None
    if about["access"] is not None:
        gid, members = about["access"]
        access = Access(int(gid), member_grants(settings.control_allow), frozenset(members))
    host = Host(
        about["data_directory"],
        about["config_path"],
        state["loaders"]["config_text"],
        Configuration(host=settings, database=database),
        HostLocks.resume(state["locks"], baggage),
        about["log_to"],
        access,
        state,
        baggage,
    )
    callers = document.resume(host, state, baggage)
    if left := baggage.left():
        raise AssertionError(f"nobody has unpacked descriptors {sorted(left)}")
    return host, callers


def _go_on(raw: dict[str, Any]) -> Host:
    """Return the host of a state, as it is about to turn its loop for the first time."""
    from bgworker._process import injection

    injection.point("host.resume")
    host, callers = _build(raw)
    said = raw["reexec"]
    host.loop.soon(lambda: _set_title(host))
    host.go_on()
    host.reexec.went_well(said, callers)
    host.loop.note({signal.SIGCHLD, *said["signals"]})
    signal.pthread_sigmask(signal.SIG_SETMASK, said["mask"])
    return host


def _set_title(host: Host) -> None:
    """Show what this process is; in the first turn, since importing what that takes is a fifth of the whole."""
    from bgworker._process.helper import set_title

    set_title(f"bgworker: host {host.data_directory}")


def _give_up(raw: dict[str, Any], error: BaseException) -> None:
    """End everything in order, by nothing but what the document says of processes."""
    import traceback

    text = "".join(traceback.format_exception(error))
    reason = f"the host could not go on after it had executed itself anew, every worker ends with it: {error!r}"
    with contextlib.suppress(OSError):
        sys.stderr.write(f"FATAL:  {reason}\n{text}")
        sys.stderr.flush()
    with contextlib.suppress(OSError, KeyError, TypeError):
        # As the collector writes it: whoever asks why the last host ended reads it there.
        now = time.time()
        at = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(now))}.{int(now * 1000) % 1000:03} UTC [{os.getpid()}]"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(f"{raw['about']['data_directory']}/log/host.log", flags, 0o600)
        lines = [f"FATAL:  {reason}", *(f"DETAIL:  {line}" for line in text.splitlines())]
        os.write(fd, "".join(f"{at} {line}\n" for line in lines).encode())
        os.close(fd)
    pids = [each["pid"] for each in raw.get("processes", ()) if each["birth"] in raw.get("running", ())]
    _end(pids, signal.SIGTERM, whole_session=True)
    postgres = ((raw.get("database") or {}).get("said") or {}).get("postgres_pid")
    if postgres is not None:
        _end([postgres], signal.SIGINT, whole_session=False)


def _end(pids: list[int], signum: int, *, whole_session: bool) -> None:
    """Ask children to go, wait for them, and leave the rest to their death signal: they die with this process."""
    left = set(pids)
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signum)
    deadline = time.monotonic() + _LAST_PATIENCE
    while left and time.monotonic() < deadline:
        for pid in list(left):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    continue
            left.discard(pid)
        time.sleep(_LOOK_INTERVAL)
    for pid in left if whole_session else ():
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
