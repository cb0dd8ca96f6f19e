"""A [database] url that libpq cannot read: one error, whoever meets it first."""

from __future__ import annotations

from collections.abc import Callable

from bgworker.testing import RunningHost

MakeHost = Callable[..., RunningHost]

WORKER = '[[worker]]\nbgw_name = "keeper"\ncommand = ["sleep", "1000"]\n'
GOOD = '[database]\nurl = "postgresql://me@127.0.0.1:1/shop"\n' + WORKER
BAD = '[database]\nurl = "postgresql://me@127.0.0.1:1/shop?colour=secret"\n' + WORKER


def test_check_run_and_reload_refuse_it(make_host: MakeHost) -> None:
    """C40: check, run, plan and reload give the same error, with file and line and nothing of the url; nothing changes."""
    host = make_host(BAD)
    said = f"{host.config_path}:2: [database] url cannot be read: "
    for command in ("check", "run"):
        refused = host.run_cli(command)
        assert refused.returncode == 2
        assert refused.stderr.startswith(f"ERROR:  {said}")
        assert "secret" not in refused.stderr
    assert not (host.data_directory / "history.jsonl").exists()
    host.config_path.write_text(GOOD)
    host.start_and_wait("starting")
    pid = host.wait_for_worker("keeper", "not_yet_started")["pid"]
    host.config_path.write_text(BAD.replace("1000", "2000"))
    for command in ("plan", "reload"):
        refused = host.run_cli(command)
        assert refused.returncode == 2
        assert said in refused.stderr
    assert (slot := host.slot("keeper")) is not None
    assert slot["pid"] == pid
    assert slot["config"]["command"] == ["sleep", "1000"]


def test_a_service_that_has_gone_stops_no_births(make_host: MakeHost) -> None:
    """Check and a reload look a service up; a loader that takes another one's place goes by what was accepted."""
    host = make_host('[database]\nurl = "postgresql:///shop?service=nowhere"\n' + WORKER)
    assert 'service "nowhere"' in host.run_cli("check").stderr
    host.start_and_wait("starting")
    host.wait_for_worker("keeper", "not_yet_started")
