"""Where a host's life begins and ends: directory, locks, process settings, loop, exit code."""

from __future__ import annotations

import os
import resource
from datetime import UTC, datetime

from bgworker._config.descriptors import needed
from bgworker._config.locate import Location
from bgworker._config.model import Configuration, HostSettings
from bgworker._host.data_directory import HostLocks, prepare
from bgworker._host.host import Host
from bgworker._host.life import live
from bgworker._host.rights import access_for
from bgworker._process import prctl
from bgworker._process.helper import set_title
from bgworker._version import __version__
from bgworker.errors import ConfigurationError


def run_host(location: Location, configuration: Configuration, config_text: str | None = None) -> int:
    """Run a host in the foreground until it is shut down; return the exit code of ``bgworker run``.

    Args:
        location: The data directory, and workers.toml if there is one.
        configuration: Made of that file, and checked.
        config_text: The file's text, so that a replaced loader does not depend on what it becomes.

    Raises:
        ConfigurationError: The directory cannot be used, or another host runs on it.
    """
    _open_standard_descriptors()
    os.umask(0o077)
    _raise_descriptor_limit(configuration.host)
    access = access_for(configuration.host.control_group, configuration.host.control_allow)
    prepare(location.data_directory, access.gid if access is not None else None)
    started_at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    log_to = configuration.host.log or default_log_target()
    # Where the log is says, when this host has gone, whether there is one to read.
    locks = HostLocks(location.data_directory, {"pid": os.getpid(), "started_at": started_at, "log": log_to})
    prctl.set_child_subreaper()
    host = Host(
        location.data_directory,
        location.config_path,
        config_text,
        configuration,
        locks,
        log_to,
        access,
    )
    # After the tables are made: a process that others may not look into cannot reopen its own files either.
    prctl.set_dumpable(False)
    set_title(f"bgworker: host {location.data_directory}")
    host.log("LOG", f"starting bgworker {__version__} (PID {os.getpid()}) on data directory {host.data_directory}")
    return live(host)


def default_log_target() -> str:
    """Return where log lines go when workers.toml does not say: to standard error too where somebody reads or keeps it."""
    return "both" if os.getpid() == 1 or "INVOCATION_ID" in os.environ or os.isatty(2) else "files"


def _open_standard_descriptors() -> None:
    """See that 0, 1 and 2 are open: a lock or a socket that got one of these numbers would be overwritten in every child."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def _raise_descriptor_limit(settings: HostSettings) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = needed(settings)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise ConfigurationError(
            f"max_worker_processes = {settings.max_worker_processes} does not fit this system's limit of open files",
            f"The host needs {wanted} descriptors; the hard limit is {hard}.",
            "Raise the limit (ulimit -Hn, LimitNOFILE=), or lower max_worker_processes.",
        )
    if soft < wanted:
        # No more than needed: workers inherit the limit, and programs exist that walk through all of it.
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


__all__ = ["default_log_target", "run_host"]
