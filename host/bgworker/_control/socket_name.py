"""The control socket's name in the data directory: bound, kept, and bound again when somebody has removed it.

A tidy-up of old files that takes the socket away would leave a host that nobody can reach and
that holds its lock. The kernel tells the host when the name goes (inotify); where it cannot, a
reload looks. What stands in the name's place and is not ours is never replaced while the host
runs: it may be the socket of another host, if somebody has removed the lock files, too.
``server`` alone uses this room.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Sequence
from typing import Final

from bgworker._baggage import Baggage
from bgworker._inotify import NameWatch
from bgworker.errors import ConfigurationError

SOCKET_NAME: Final = "control.sock"
RUN_NAME: Final = "run"
#: Another socket in the same directory, which ``_host.program_notices`` keeps; one watch is enough for both.
NOTIFY_NAME: Final = "notify.sock"
#: Connections that wait for accept().
BACKLOG: Final = 1024
#: Pause before another try after the kernel has refused (no descriptor, a full disk), in seconds.
RETRY_INTERVAL: Final = 5.0

#: Takes level, message, detail and hint.
Log = Callable[[str, str, str, str], None]


class SocketName:
    """Holds the name ``run/control.sock``, from construction on; the only name that a host makes after its start.

    Args:
        data_directory: Absolute, ours and writable by nobody else.
        group: Whose members may connect; None lets the owner alone.
        make_directory: Makes ``run`` with its permissions, or checks that it is ours.
        log: Is told when the name was lost, and what became of it.
        carried: What holds the name already, from ``carry`` of this host before it executed itself anew.
        baggage: Has the descriptors of that.

    Raises:
        ConfigurationError: Something that is no socket of ours has the name, or it cannot be made.
    """

    def __init__(
        self,
        data_directory: str,
        group: int | None,
        make_directory: Callable[[], None],
        log: Log,
        carried: Sequence[int] | None = None,
        baggage: Baggage | None = None,
    ) -> None:
        self.path = f"{data_directory}/{RUN_NAME}/{SOCKET_NAME}"
        self._group = group
        self._make_directory = make_directory
        self._log = log
        #: What the name leads to, held so that nothing else gets its inode number while we compare.
        self._bound_fd = -1
        #: What the log was told last; nothing is said twice in a row.
        self._said = ""
        #: Monotonic time of another try; None while none is needed.
        self.retry_at: float | None = None
        if carried is None or baggage is None:
            self._data_fd = _open_directory(data_directory)
            self._run_fd = _open_directory(os.path.dirname(self.path))
            self._remove_stale()
            self.listener = self._bind_first()
        else:
            self._data_fd, self._run_fd, self._bound_fd, listener = map(baggage.unpack, carried)
            self.listener = socket.socket(fileno=listener)
            self.listener.setblocking(False)
        self._watch: NameWatch | None = None
        self._watches = (-1, -1)
        try:
            self._watch = NameWatch()
            self._watch_directories()
        except OSError as error:
            self._do_without_watch(error)

    def carry(self, baggage: Baggage) -> list[int]:
        """Return what holds the name: directories, what it leads to, and the listening socket. Who has come is accepted later."""
        return [baggage.pack(fd) for fd in (self._data_fd, self._run_fd, self._bound_fd, self.listener.fileno())]

    def _bind_first(self) -> socket.socket:
        try:
            return self._bind()
        except OSError as error:
            raise ConfigurationError(
                f'could not create control socket "{self.path}": {error.strerror or error}',
                "Without it no command could reach the host.",
            ) from None

    def fileno(self) -> int:
        """Return the descriptor that is readable when names have changed; -1 on a system that does not tell."""
        return self._watch.fileno() if self._watch is not None else -1

    def has_changed(self) -> bool:
        """Whether what has changed since the last call may concern a socket; call it when the descriptor is readable."""
        if self._watch is None:
            return False
        changes = self._watch.changes()
        data, run = self._watches
        return changes is None or not changes.isdisjoint({(data, RUN_NAME), (run, SOCKET_NAME), (run, NOTIFY_NAME)})

    def is_there(self) -> bool:
        """Whether the name leads to our socket."""
        try:
            found = os.stat(f"{RUN_NAME}/{SOCKET_NAME}", dir_fd=self._data_fd, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(found, os.fstat(self._bound_fd))

    def renew(self, now: float) -> bool:
        """Bind the name again if it is gone; return whether ``listener`` is another one now, the old one still open.

        Never raises because of what it finds: it says so in the log, and the host goes on without its socket.
        """
        self.retry_at = None
        if self.is_there():
            self._said = ""
            return False
        if not self._has_data_directory():
            self._say(f'data directory "{os.path.dirname(os.path.dirname(self.path))}" is gone', "Stop the host with a signal.")
            return False
        try:
            self._make_directory()
            fresh = _open_directory(os.path.dirname(self.path))
            os.close(self._run_fd)
            self._run_fd = fresh
            if self._watch is not None:
                self._watch_directories()
            self.listener = self._bind()
        except ConfigurationError as error:
            self._say(error.message_primary, "Move what is there away: the host then makes it again at once.")
            return False
        except OSError as error:
            self.retry_at = now + RETRY_INTERVAL
            self._say(f'could not create "{self.path}": {error.strerror or error}', "The host tries again by itself.")
            return False
        self._said = ""
        self._log("LOG", f'control socket "{self.path}" was removed and is made again', "Connections that were open stay.", "")
        return True

    def close(self) -> None:
        """Stop listening and remove the name, if it is still ours."""
        self.listener.close()
        try:
            if self.is_there():
                os.unlink(SOCKET_NAME, dir_fd=self._run_fd)
        except OSError:
            pass  # somebody removed it, or the file system is read-only by now: the next host replaces it
        if self._watch is not None:
            self._watch.close()
        for fd in (self._bound_fd, self._run_fd, self._data_fd):
            os.close(fd)

    def _say(self, reason: str, hint: str) -> None:
        if reason != self._said:
            self._said = reason
            detail = "No command can reach this host until it is there again; its workers go on."
            self._log("WARNING", f"the control socket is gone: {reason}", detail, hint)

    def _has_data_directory(self) -> bool:
        try:
            found = os.lstat(os.path.dirname(os.path.dirname(self.path)))
        except OSError:
            return False
        return os.path.samestat(found, os.fstat(self._data_fd))

    def _watch_directories(self) -> None:
        assert self._watch is not None
        _, old = self._watches
        try:
            # A directory that is watched already keeps its number.
            self._watches = (self._watch.add(self._data_fd), self._watch.add(self._run_fd))
        except OSError as error:
            self._do_without_watch(error)
        if old not in (-1, self._watches[1]):
            self._watch.discard(old)

    def _do_without_watch(self, error: OSError) -> None:
        if self._watch is not None:
            # Not closed here: the loop may wait on it. It tells nothing any more that is listened to.
            self._watches = (-1, -1)
        self._log(
            "LOG",
            f"the place of the control socket is not watched: {error.strerror or error}",
            "If somebody removes the socket, the host does not notice by itself.",
            "A SIGHUP to the host makes it again.",
        )

    def _remove_stale(self) -> None:
        """Remove what a dead host has left: the host lock is held, so whoever bound it is no more."""
        try:
            found = os.stat(SOCKET_NAME, dir_fd=self._run_fd, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
            raise _occupied(self.path)
        if self._is_answered():
            raise ConfigurationError(
                f'another host answers on control socket "{self.path}"',
                "It runs although it does not hold the lock of this data directory; somebody may have removed host.lock.",
                f"Stop it first, with: bgworker stop -D {os.path.dirname(os.path.dirname(self.path))}",
            )
        os.unlink(SOCKET_NAME, dir_fd=self._run_fd)

    def _is_answered(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as caller:
            # 0, or EAGAIN when too many wait: there is a listener. A dead one's name gives ECONNREFUSED.
            return caller.connect_ex(self._short_path()) in (0, errno.EAGAIN)

    def _short_path(self) -> str:
        # A path through the descriptor is short whatever the directory's own path is (sun_path holds 107 bytes).
        return f"/proc/self/fd/{self._run_fd}/{SOCKET_NAME}"

    def _bind(self) -> socket.socket:
        """Return a listening socket of this name, which only we and the group can connect to from its first moment on."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            os.fchmod(listener.fileno(), 0o600)  # Linux gives the mode of the descriptor to the name
            # bind() never replaces: whatever has the name, a dangling link included, is EADDRINUSE.
            listener.bind(self._short_path())
            os.chmod(SOCKET_NAME, 0o600, dir_fd=self._run_fd)
            if self._group is not None:
                os.chown(SOCKET_NAME, -1, self._group, dir_fd=self._run_fd)
                os.chmod(SOCKET_NAME, 0o660, dir_fd=self._run_fd)
            listener.listen(BACKLOG)
            bound_fd = os.open(SOCKET_NAME, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._run_fd)
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE:
                raise _occupied(self.path) from None
            raise
        if self._bound_fd >= 0:
            os.close(self._bound_fd)
        self._bound_fd = bound_fd
        return listener


def _open_directory(path: str) -> int:
    """Open a directory of ours; what is open is looked at, not what the path leads to a moment later.

    Raises:
        ConfigurationError: It belongs to another user, or others may write to it.
        OSError: It cannot be opened, or is a symbolic link.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    found = os.fstat(fd)
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        os.close(fd)
        raise ConfigurationError(
            f'could not create control socket in "{path}": the directory is not ours alone',
            "It belongs to another user, or others may write to it.",
        )
    return fd


def _occupied(path: str) -> ConfigurationError:
    return ConfigurationError(
        f'could not create control socket "{path}": something else is there',
        "It is not a socket of this host; it is left untouched.",
        "Move it away, then start the host again.",
    )
