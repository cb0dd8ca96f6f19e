"""A plan, the reload that carries it out, and what stays as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bgworker.testing import RunningHost
from tests.end_to_end.test_life import TASKS, worker

MakeHost = Callable[..., RunningHost]

HEAD = "[host]\nmax_worker_processes = 6\nshutdown_timeout = 2.0\n"


def planned(host: RunningHost) -> tuple[int, dict[str, Any]]:
    """Return exit code and facts of a plan."""
    result = host.run_cli("plan", "--json")
    assert result.stdout, result.stderr
    return result.returncode, json.loads(result.stdout)


def actions(plan: dict[str, Any]) -> dict[str, str]:
    """Return what happens to each worker that something is said of."""
    return {change["bgw_name"]: change["action"] for change in plan["changes"]}


def test_plan_says_what_the_reload_then_does(make_host: MakeHost) -> None:
    """C02: each worker's act and reason is printed before anything is done, and the reload does the same."""
    before = HEAD + worker("stays", "idle") + worker("goes", "idle") + worker("live", "idle", stop_timeout="3")
    host = make_host(before + worker("changes", "idle", bgw_main_arg='{ every = 1, url = "postgres://u:secret@h" }'), tasks=TASKS)
    host.start_and_wait()
    pids = {name: host.wait_for_worker(name)["pid"] for name in ("stays", "goes", "live", "changes")}
    assert planned(host)[0] == 0
    host.config_path.write_text(
        HEAD
        + worker("stays", "idle")
        + worker("live", "idle", stop_timeout="4", bgw_restart_time="7")
        + worker("changes", "idle", bgw_main_arg='{ every = 2, url = "postgres://u:hidden@h" }')
        + worker("comes", "idle")
    )
    result = host.run_cli("plan")
    assert result.returncode == 6
    assert "secret" not in result.stdout
    assert "hidden" not in result.stdout
    code, plan = planned(host)
    assert code == 6
    assert actions(plan) == {"goes": "stop", "live": "live", "changes": "restart", "comes": "start"}
    reasons = {change["bgw_name"]: change["reason"] for change in plan["changes"]}
    assert reasons["live"] == "bgw_restart_time 1 -> 7, stop_timeout 3 -> 4"
    assert reasons["changes"] == "bgw_main_arg.every 1 -> 2, bgw_main_arg.url changed"
    assert plan["unchanged"] == ["stays"]
    # A plan changes nothing.
    assert {name: (host.slot(name) or {})["pid"] for name in pids} == pids
    result = host.run_cli("reload", "--json")
    assert result.returncode == 0, result.stderr
    done = json.loads(result.stdout)
    assert actions(done) == actions(plan)
    outcomes = {c["bgw_name"]: c["outcome"]["state"] for c in done["changes"] if "outcome" in c}
    assert outcomes == {"goes": "gone", "changes": "started", "comes": "started"}
    slots = {slot["bgw_name"]: slot for slot in host.status()["slots"]}
    assert (slots["stays"]["pid"], slots["live"]["pid"]) == (pids["stays"], pids["live"])
    assert (slots["live"]["bgw_restart_time"], slots["live"]["config"]["stop_timeout"]) == (7.0, 4.0)
    assert slots["changes"]["pid"] != pids["changes"]
    assert planned(host)[0] == 0


def test_stopped_worker_stays_stopped_and_the_plan_says_so(make_host: MakeHost) -> None:
    """C29: what an operator terminated is in the plan as what stays down, with the command that starts it."""
    host = make_host(HEAD + worker("idle", "idle"), tasks=TASKS)
    host.start_and_wait()
    host.wait_for_worker("idle")
    assert host.run_cli("terminate", "--wait", "idle").returncode == 0
    host.config_path.write_text(HEAD + worker("idle", "idle", bgw_extra='"new"'))
    code, plan = planned(host)
    assert (code, actions(plan)) == (0, {"idle": "nothing"})
    (change,) = plan["changes"]
    assert change["reason"].startswith("it stays down (terminated by")
    assert change["reason"].endswith("start it with: bgworker start idle")
    assert host.run_cli("reload").returncode == 0
    assert host.slot("idle") is None


def test_broken_file_or_plugin_is_no_plan(make_host: MakeHost) -> None:
    """Exit code 2 with every error; what runs goes on, and the log does not say that a reload failed."""
    host = make_host(HEAD + 'shared_preload_libraries = ["tasks"]\n' + worker("idle", "idle"), tasks=TASKS)
    host.start_and_wait()
    pid = host.wait_for_worker("idle")["pid"]
    good = host.config_path.read_text()
    host.config_path.write_text(good + '[[worker]]\nbgw_nam = "x"\n')
    result = host.run_cli("plan")
    assert result.returncode == 2
    assert "bgw_nam" in result.stderr
    assert result.stderr.startswith("ERROR:  could not plan a reload: ")
    host.config_path.write_text(good)
    (host.directory / "tasks.py").write_text("1 / 0\n")
    result = host.run_cli("plan")
    assert result.returncode == 2
    assert "ZeroDivisionError" in result.stderr
    assert (host.slot("idle") or {})["pid"] == pid
    assert "could not reload" not in host.log()


def test_worker_that_runs_is_not_lost_by_a_registration_that_is_refused(make_host: MakeHost) -> None:
    """A file that would leave a running worker without its registration is refused as a whole."""
    host = make_host(HEAD + worker("idle", "idle"), tasks=TASKS)
    host.start_and_wait()
    pid = host.wait_for_worker("idle")["pid"]
    flags = '["BGWORKER_SHMEM_ACCESS", "BGWORKER_BACKEND_DATABASE_CONNECTION"]'
    host.config_path.write_text(HEAD + '[database]\nurl = "embedded"\n' + worker("idle", "idle", bgw_flags=flags))
    for command in ("plan", "reload"):
        result = host.run_cli(command)
        assert result.returncode == 2
        assert "has no database" in result.stderr
    assert (host.slot("idle") or {})["pid"] == pid


def test_reload_tells_of_a_worker_that_did_not_start(make_host: MakeHost) -> None:
    """C10: exit code 1 with the reason, and the others run."""
    host = make_host(HEAD, tasks=TASKS)
    host.start_and_wait()
    host.config_path.write_text(HEAD + worker("typo", "idel") + worker("idle", "idle") + '[[worker]]\nbgw_name = "hartbeat"\n')
    assert actions(planned(host)[1]) == {"typo": "start", "idle": "start", "hartbeat": "rejected"}
    result = host.run_cli("reload")
    assert result.returncode == 1
    assert 'could not find function "idel"' in result.stdout
    assert "start idle (it is new): started, PID" in result.stdout
    assert "rejected hartbeat" in result.stdout


def test_file_that_the_host_does_not_run(make_host: MakeHost, tmp_path: Path) -> None:
    """Plan and reload refuse a -c that names another file, and say which one they would look at; the host's own may be named."""
    host = make_host(HEAD + worker("one", "idle"), tasks=TASKS)
    host.start_and_wait()
    other = tmp_path / "other.toml"
    other.write_text(host.config_path.read_text() + worker("two", "idle"))
    for command in ("plan", "reload"):
        for path in (other, tmp_path / "nosuch.toml"):
            refused = host.run_cli("-D", str(host.data_directory), "-c", str(path), command)
            assert (refused.returncode, refused.stdout) == (2, "")
            assert f'ERROR:  this host does not run "{path}"\nDETAIL:  It runs "{host.config_path}".' in refused.stderr
        own = host.run_cli("-c", str(host.config_path), command)
        assert own.returncode == 0, own.stderr
    assert host.slot("two") is None


def test_included_files(make_host: MakeHost) -> None:
    """A file put into conf.d is a change; what was accepted outlives the files, and check says which file a worker is of."""
    include = 'include = ["conf.d/*.toml"]\n'
    host = make_host(include + HEAD, tasks=TASKS)
    host.start_and_wait()
    (host.directory / "conf.d").mkdir()
    (host.directory / "conf.d" / "10-idle.toml").write_text(worker("idle", "idle"))
    assert actions(planned(host)[1]) == {"idle": "start"}
    assert "10-idle.toml [[worker]] #1" in host.run_cli("check").stdout
    assert host.run_cli("reload").returncode == 0
    (host.directory / "conf.d" / "20-idle.toml").write_text("\n" + worker("idle", "idle"))
    result = host.run_cli("reload")
    assert result.returncode == 2
    assert "20-idle.toml:3:" in result.stderr
    assert "10-idle.toml on line 2" in result.stderr
    pid = host.wait_for_worker("idle")["pid"]
    assert host.run_cli("upgrade", "--settle", "0", "idle").returncode == 0
    assert host.wait_for_worker("idle")["pid"] != pid


def test_plan_without_a_host(tmp_path: Path, make_host: MakeHost) -> None:
    """Exit code 3."""
    assert make_host(HEAD).run_cli("plan").returncode == 3
