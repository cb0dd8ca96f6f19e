"""The data directory: made, checked and locked before anything else of a host exists.

Two flocks and no pid file. ``host.lock`` is the host's own and ends with it. ``workers.lock``
is inherited by every helper and preloaded worker, so that a new host can tell that
processes of a dead one are still about. What a lock file says is for people; nobody is
ever signalled because of it.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
from typing import Any, Final

from bgworker._baggage import Baggage
from bgworker.errors import ConfigurationError

#: How long a new host waits for a dead one's workers; they die within milliseconds unless the kernel is busy, in seconds.
_ORPHAN_TIMEOUT: Final = 5.0


def prepare(path: str, group: int | None = None) -> None:
    """Create the data directory and what stands in it, or check that it is ours.

    Args:
        path: Absolute.
        group: Whose members may pass through to the control socket, and look at nothing on the way.

    Raises:
        ConfigurationError: A symlink, a foreign owner, or no permission.
    """
    # As root, the embedded PostgreSQL runs as a service user that must be able to pass through, and no more.
    _directory(path, 0o711 if os.geteuid() == 0 else 0o700)
    _let_through(path, group)
    make_run_directory(path, group)
    for name in ("log", "log/workers"):
        _directory(f"{path}/{name}", 0o700)
    try:
        fd = os.open(f"{path}/.gitignore", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    except OSError as error:
        raise _cannot(path, error) from None
    try:
        os.write(fd, b"*\n")
    except OSError:
        # A full disk is no reason not to start: the next start makes the file again.
        os.unlink(f"{path}/.gitignore")
    finally:
        os.close(fd)


def make_run_directory(path: str, group: int | None) -> None:
    """Make ``run`` in a data directory, or check that it is ours; at the start, and when somebody has removed it.

    Raises:
        ConfigurationError: A symlink, a foreign owner, or no permission.
    """
    _directory(f"{path}/run", 0o711 if os.geteuid() == 0 else 0o700)
    _let_through(f"{path}/run", group)


def _directory(path: str, mode: int) -> None:
    try:
        try:
            # The parents are nobody's secret; the directory itself is.
            os.makedirs(os.path.dirname(path) or "/", exist_ok=True)
            os.mkdir(path, mode)
            os.chmod(path, mode)  # whatever the umask was
        except FileExistsError:
            pass
        found = os.lstat(path)
    except OSError as error:
        raise _cannot(path, error) from None
    if not stat.S_ISDIR(found.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a directory"
        raise ConfigurationError(
            f'could not use data directory "{path}": it is {kind}',
            "Whoever can change it would choose what the host reads and writes.",
            "Name the directory itself with -D or [host] data_directory.",
        )
    if found.st_uid != os.geteuid():
        raise ConfigurationError(
            f'could not use data directory "{path}": it belongs to user {found.st_uid}, and this is user {os.geteuid()}',
            message_hint="Run the host as the directory's owner, or name another directory with -D.",
        )
    if found.st_mode & 0o022:
        raise ConfigurationError(
            f'could not use data directory "{path}": others may write to it',
            f"Its permissions are {stat.S_IMODE(found.st_mode):04o}.",
            f"Run: chmod go-w {path}",
        )


def _let_through(path: str, group: int | None) -> None:
    """Let the members of a group pass through a directory of ours, and no group if there is none."""
    mode = stat.S_IMODE(os.lstat(path).st_mode)
    try:
        if group is not None:
            os.chown(path, -1, group, follow_symlinks=False)
            os.chmod(path, (mode & ~0o070) | 0o010)
        elif path.endswith("/run"):
            os.chmod(path, mode & ~0o070 if not mode & 0o001 else mode)  # what an earlier control_group has left
    except PermissionError:
        raise ConfigurationError(
            f'could not give "{path}" to [host] control_group: permission denied',
            f"User {os.geteuid()} is not a member of group {group}.",
            "Only root, and members of the group, can give a directory to it.",
        ) from None


def _cannot(path: str, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f'could not create "{path}": {error.strerror}',
        message_hint="Name a directory this user can write to with -D, BGWORKER_DATA or [host] data_directory.",
    )


class HostLocks:
    """Both locks, held from construction on.

    Raises:
        ConfigurationError: Another host runs on this directory, or processes of a dead one do not go away.
    """

    def __init__(self, path: str, facts: dict[str, Any]) -> None:
        self._host_fd = _open_lock(f"{path}/host.lock")
        try:
            fcntl.flock(self._host_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read_facts(self._host_fd)
            os.close(self._host_fd)
            who = f" as process {holder['pid']}, since {holder.get('started_at', 'an unknown time')}" if "pid" in holder else ""
            raise ConfigurationError(
                f'another host is running on data directory "{path}"',
                f"It runs{who}; it was left alone.",
                f"Look at it with: bgworker status -D {path}",
            ) from None
        self.workers_fd = _open_lock(f"{path}/workers.lock")
        try:
            _lock_within(self.workers_fd, _ORPHAN_TIMEOUT)
        except TimeoutError:
            raise ConfigurationError(
                f'processes of an earlier host are still running on data directory "{path}"',
                f"They did not end within {_ORPHAN_TIMEOUT:.0f} seconds of this start.",
                f"Find them with: fuser -v {path}/workers.lock",
            ) from None
        try:
            os.ftruncate(self._host_fd, 0)
            os.pwrite(self._host_fd, json.dumps(facts).encode() + b"\n", 0)
        except OSError:
            pass  # a full disk: what the file says is for people, the lock is the kernel's

    def carry(self, baggage: Baggage) -> list[int]:
        """Return both, for the same host when it has executed itself anew; a lock is its descriptor's, and stays."""
        return [baggage.pack(self._host_fd), baggage.pack(self.workers_fd)]

    @classmethod
    def resume(cls, carried: list[int], baggage: Baggage) -> HostLocks:
        """Return the locks that ``carry`` has told of."""
        locks = cls.__new__(cls)
        locks._host_fd, locks.workers_fd = map(baggage.unpack, carried)
        return locks

    def close(self) -> None:
        """Give both locks back."""
        os.close(self.workers_fd)
        os.close(self._host_fd)


def _open_lock(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _cannot(path, error) from None


def _lock_within(fd: int, timeout: float) -> None:
    def expire(*_: object) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _read_facts(fd: int) -> dict[str, Any]:
    try:
        facts = json.loads(os.pread(fd, 4096, 0))
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}
