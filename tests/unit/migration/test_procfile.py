"""A Procfile becomes [[worker]] tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from bgworker._migration import procfile
from bgworker.errors import ConfigurationError


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("celery -A app worker", ["celery", "-A", "app", "worker"]),
        ("python -c 'print(1)'", ["/bin/sh", "-c", "python -c 'print(1)'"]),
        ("web --port $PORT", ["/bin/sh", "-c", "exec web --port $PORT"]),
        ("DEBUG=1 A= web", ["/bin/sh", "-c", "DEBUG=1 A= exec web"]),
        ("cd app && ./run", ["/bin/sh", "-c", "cd app && ./run"]),
        ("exec web > log", ["/bin/sh", "-c", "exec web > log"]),
        ("it's", ["/bin/sh", "-c", "exec it's"]),
    ],
)
def test_command(tmp_path: Path, line: str, command: list[str]) -> None:
    """A line is a program and its arguments where it can be, and a shell's where it must be."""
    path = tmp_path / "Procfile"
    path.write_text(f"web: {line}\n")
    (worker,) = procfile.convert(str(path)).workers
    start = "BgWorkerStart_PostmasterStart"  # with the host, whatever a database does
    assert worker == {"bgw_name": "web", "command": command, "bgw_start_time": start, "working_directory": str(tmp_path)}


def test_environment_file_release_and_remarks(tmp_path: Path) -> None:
    """A .env beside the file is every worker's; a release is not run beside the others; a line that is none is said."""
    path = tmp_path / "Procfile"
    path.write_text("# comment\n\nrelease: migrate\nno colon\nweb: web $PORT\nweb: again\n")
    (tmp_path / ".env").write_text("A=1\n")
    result = procfile.convert(str(path))
    assert [worker["env_file"] for worker in result.workers] == [f"{tmp_path}/.env"] * 3
    assert result.workers[0]["enabled"] is False
    assert [(remark.line, remark.subject) for remark in result.remarks] == [
        (3, "release"), (4, "line"), (5, "web"), (5, "web"), (0, '"web"'),
    ]  # fmt: skip


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    """One error, naming the file."""
    with pytest.raises(ConfigurationError, match="Procfile"):
        procfile.convert(str(tmp_path / "Procfile"))
