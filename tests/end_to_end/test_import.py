"""What ``bgworker import`` has written runs as its supervisor ran it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bgworker.testing import RunningHost

#: Nobody answers there.
DATABASE = '[database]\nurl = "postgresql://me@127.0.0.1:1/shop"\n'


@pytest.mark.parametrize(
    ("kind", "text"), [("supervisord", "[program:keeper]\ncommand=sleep 1000\n"), ("procfile", "keeper: sleep 1000\n")]
)
def test_program_waits_for_no_database(make_host: Callable[..., RunningHost], kind: str, text: str) -> None:
    """C07: an imported program starts with the host, also when workers.toml has a database that does not answer."""
    host = make_host()
    source = host.directory / "source"
    source.write_text(text)
    made = host.run_cli("import", kind, str(source))
    assert made.returncode == 0
    ours = '[[worker]]\nbgw_name = "ours"\ncommand = ["sleep", "1000"]\n'
    host.config_path.write_text(f"{made.stdout}\n{DATABASE}{ours}")
    host.start_and_wait("starting")
    slot = host.wait_for_worker("keeper", "started")
    assert slot["bgw_start_time"] == "BgWorkerStart_PostmasterStart"
    waiting = host.wait_for_worker("ours", "not_yet_started")
    assert waiting["reason"].startswith("waits for the database to be read-write: ")


def test_wrong_values_are_notes(make_host: Callable[..., RunningHost]) -> None:
    """A value that supervisord refuses is a NOTE with file and line, and the exit code is 0, as for every other NOTE."""
    host = make_host()
    source = host.directory / "source"
    source.write_text("[program:x]\ncommand=x\nautorestart=perhaps\n")
    made = host.run_cli("import", "supervisord", str(source))
    assert made.returncode == 0
    assert made.stderr.startswith(
        f'NOTE:  {source}:3: [program:x] autorestart: "perhaps" is not true, false or unexpected, as supervisord asks for; '
        'its default is taken, unexpected: restart_on = "crash"\n'
    )
    assert 'restart_on = "crash"' in made.stdout
