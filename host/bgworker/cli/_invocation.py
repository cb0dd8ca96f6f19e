"""Which host a command means: -D and -c, resolved once, and the ways to reach it.

Imported by every verb, the fast path of ``status --json`` included: nothing but the
standard library is imported here until it is needed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bgworker.errors import ConfigurationError

if TYPE_CHECKING:
    from bgworker._config.locate import Location
    from bgworker._config.model import Configuration
    from bgworker._control.client import Client


class Invocation:
    """The global options of one command line; those after the verb override those before it."""

    # Not a dataclass: that module costs more than the whole of `status --json`.
    def __init__(self, data_directory: str | None = None, config: str | None = None) -> None:
        self.data_directory = data_directory
        self.config = config

    @property
    def named_config(self) -> str | None:
        """The file that -c names, as an absolute path; None where it is not said, and the host's own is meant."""
        return os.path.abspath(self.config) if self.config else None

    def location(self) -> Location:
        """Return the absolute paths that the options, the environment and workers.toml mean."""
        from bgworker._config.locate import locate

        return locate(self.config, self.data_directory)

    def configuration(self) -> Configuration:
        """Return what workers.toml says, or the defaults where there is none.

        Raises:
            ConfigurationErrors: With every error of the file.
        """
        from bgworker._config.load import load_configuration
        from bgworker._config.model import Configuration

        path = self.location().config_path
        return Configuration() if path is None else load_configuration(path)

    def configuration_and_text(self) -> tuple[Configuration, str]:
        """Return what workers.toml says, and its text, from one reading of a file that must be there.

        Raises:
            ConfigurationError: There is no file, or it has errors; all of them are in it.
        """
        from bgworker._config.load import parse_configuration, read_configuration

        path = self.location().config_path
        if path is None:
            raise ConfigurationError(
                f'there is no workers.toml in "{os.getcwd()}"',
                message_hint="Name one with -c or BGWORKER_CONFIG, or see everything at work first with: bgworker demo",
            )
        text = read_configuration(path)
        return parse_configuration(text, path), text

    def connect(self) -> Client:
        """Return a connection to the host.

        Raises:
            HostNotRunning: Nobody answers; names the path that was tried.
        """
        from bgworker._control.client import connect

        return connect(self.location().data_directory)

    def export(self) -> None:
        """Put the options into the environment: for a plugin's own verb, which calls ``bgworker.connect()``."""
        if self.data_directory:
            # Relative to the configuration file, as everywhere; so it is resolved before it is handed on.
            os.environ["BGWORKER_DATA"] = self.location().data_directory
        if self.config:
            os.environ["BGWORKER_CONFIG"] = os.path.abspath(self.config)
