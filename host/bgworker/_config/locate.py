"""Where workers.toml and the data directory are, for every command alike (design section 3).

On the path of ``status --json``: standard library only, tomli imported when a file must be
read and not before. Never refuses anything: a file that is missing or broken is reported by
whoever needs its contents, while this only says where to look. Every room may import it.
"""

from __future__ import annotations

import os

# typing and collections.abc cost 6 ms of the 45 that `status --json` has; type checkers take the name as true.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

#: Used when nothing names a file; relative to the current directory.
DEFAULT_CONFIG = "workers.toml"
#: Used when nothing names a data directory.
DEFAULT_DATA_DIRECTORY = "data"


class Location:
    """Absolute paths; neither is promised to exist, except a config_path that nobody named."""

    __slots__ = ("config_path", "data_directory")

    def __init__(self, config_path: str | None, data_directory: str) -> None:
        #: None: no file was named, and there is no workers.toml in the current directory.
        self.config_path = config_path
        self.data_directory = data_directory

    def __repr__(self) -> str:
        return f"Location(config_path={self.config_path!r}, data_directory={self.data_directory!r})"


def locate(config: str | None, data_directory: str | None, environ: Mapping[str, str] = os.environ) -> Location:
    """Return the configuration file and the data directory.

    Relative data directories, wherever they are named, are relative to the directory of
    the configuration file, so that a command finds the same host from anywhere.

    Args:
        config: Value of ``-c``; else ``BGWORKER_CONFIG``, else ``workers.toml`` here if it exists.
        data_directory: Value of ``-D``; else ``BGWORKER_DATA``, else ``STATE_DIRECTORY``, else the file's, else ``data``.
        environ: The environment; empty values count as unset.
    """
    named = config or environ.get("BGWORKER_CONFIG")
    path = os.path.abspath(named or DEFAULT_CONFIG)
    # systemd joins several StateDirectory= with colons; the first is the service's own.
    state_directory = environ.get("STATE_DIRECTORY", "").split(":", 1)[0]
    chosen = data_directory or environ.get("BGWORKER_DATA") or state_directory
    if not chosen:
        chosen = data_directory_in(path) or DEFAULT_DATA_DIRECTORY
    return Location(
        config_path=path if named or os.path.isfile(path) else None,
        data_directory=beside(path, chosen),
    )


def beside(config_path: str, path: str) -> str:
    """Return the path as absolute one; a relative one is relative to the directory of the configuration file."""
    return os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(config_path)), path))


def data_directory_in(config_path: str) -> str | None:
    """Return ``[host] data_directory`` as the file has it; None where it has none, or cannot be read."""
    try:
        # A configuration is a plain file; opening a FIFO would hang the command.
        if not os.path.isfile(config_path):
            return None
        with open(config_path, encoding="utf-8-sig") as file:
            text = file.read()
    except (OSError, ValueError):
        return None
    if "data_directory" not in text:
        return None
    # The lines up to the end of [host] are tried first: 10,000 workers below it take 0.1 s to parse,
    # and a mistake in one of them must not make `status` look elsewhere. If these lines parse, the cut
    # fell between two statements, and TOML lets no later line change [host]: the answer is final.
    return _from_text(_up_to_end_of_host(text)) or _from_text(text)


def _up_to_end_of_host(text: str) -> str:
    is_past_host = False
    length = 0
    for line in text.split("\n"):
        stripped = line.lstrip()
        if stripped.startswith("["):
            if is_past_host:
                return text[:length]
            is_past_host = stripped[1:].lstrip().startswith("host")
        length += len(line) + 1
    return ""


def _from_text(text: str) -> str | None:
    if not text:
        return None
    import tomli

    try:
        host: Any = tomli.loads(text).get("host")
    except (ValueError, RecursionError):
        return None
    value = host.get("data_directory") if isinstance(host, dict) else None
    return value if isinstance(value, str) and value and "\0" not in value else None
