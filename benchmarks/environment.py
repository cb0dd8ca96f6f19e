"""The peers' environment: a virtual environment of their own with supervisor and circus, made once and kept.

`make bench` makes it with pip from the package index that pip is set up for; it lies inside
`.venv`, so `make clean` removes it. Debian's and npm's packages (s6, runit, PostgreSQL, pm2) are
used where they are installed and never installed from here.
"""

from __future__ import annotations

import compileall
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.harness import ROOT

_DIRECTORY: Final = ROOT / ".venv" / "peers"
_REQUIREMENTS: Final = Path(__file__).parent / "peers" / "requirements.txt"
_DEADLINE: Final = 180.0


def peers_python() -> Path:
    """Return the interpreter of the peers' environment, whether or not it is there."""
    return _DIRECTORY / "bin" / "python"


def install() -> str:
    """Make the environment if it is missing or older than its requirements; return what went wrong, if anything did."""
    stamp = _DIRECTORY / ".installed"
    if stamp.exists() and stamp.stat().st_mtime >= _REQUIREMENTS.stat().st_mtime:
        return ""
    try:
        subprocess.run([sys.executable, "-m", "venv", str(_DIRECTORY)], check=True, capture_output=True, timeout=_DEADLINE)
        pip = [str(peers_python()), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(_REQUIREMENTS)]
        subprocess.run(pip, check=True, capture_output=True, timeout=_DEADLINE)
    except (subprocess.SubprocessError, OSError) as error:
        output = getattr(error, "stderr", None) or b""
        return f"{error} {output.decode(errors='replace').strip()[-300:]}"
    stamp.touch()
    return ""


def compile_sources() -> None:
    """Compile what is measured, as pip does with what it installs: the packages of a clone lie where they are written.

    Without it every interpreter of ours compiles its modules again where PYTHONDONTWRITEBYTECODE
    is set, and the peers', which pip has installed, do not.
    """
    for folder in ("host", "plugins", "benchmarks"):
        compileall.compile_dir(ROOT / folder, quiet=1)


def why_not(program: str) -> str:
    """Return why a program of the peers' environment cannot be had; nothing if it can."""
    return "" if (_DIRECTORY / "bin" / program).exists() else f"{program} is not in the peers' environment"
