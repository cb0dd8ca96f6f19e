"""``why`` and ``logs``: what they say of each kind of worker, and of wrong words."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bgworker.cli import logs as logs_module

Run = Callable[..., tuple[int, str, str]]


def ago(seconds: float) -> str:
    """Return an instant so long ago."""
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def slot(number: int, name: str, **keys: Any) -> dict[str, Any]:
    return {
        "slot": number, "generation": 1, "bgw_name": name, "bgw_type": name, "bgw_library_name": "shop", "state": "waiting_restart",
        "pid": None, "restarts": 0, "started_at": None, "restart_at": None, "last_exit": None, "reason": "", "config": {}, **keys,
    }  # fmt: skip


def an_exit(name: str, seconds: float = 6.0, **keys: Any) -> dict[str, Any]:
    return {
        "event": "exited", "bgw_name": name, "slot": 3, "generation": 2, "pid": 1, "code": 1, "signal": None, "at": ago(seconds),
        "reason": "exit 1: boom", "was_requested": False, "uptime": 0.8, **keys,
    }  # fmt: skip


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: Any) -> Callable[..., None]:
    """Write the history of the data directory that commands look into."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()

    def write(*records: dict[str, Any]) -> None:
        (tmp_path / "data" / "history.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))

    write()
    return write


@pytest.mark.parametrize("odd", [float("inf"), float("nan"), 10**60, 1e308, "a", [1], {"a": 1}, True])
def test_history_that_somebody_has_been_at(history: Any, run: Run, odd: Any) -> None:
    """Records with odd values in them are told as far as they can be; a traceback explains nothing."""
    history(
        an_exit("drain", uptime=odd, usage={"user": odd, "system": odd, "max_rss": odd}, versions=odd, stderr=odd, asked_by=odd)
    )
    assert run("why", "drain")[0] == 0
    assert run("why", "drain", "--json")[0] == 0


def test_a_worker_between_two_lives(history: Any, client: Any, run: Run) -> None:
    """Reason, next try, how the last lives ended, what was written last, what they used, and what to do."""
    trace = ["Traceback (most recent call last):", "  File x", "RuntimeError: boom"]
    history(
        an_exit("drain", 90),
        an_exit("other", 7, reason="exit 1: not this one"),
        an_exit(
            "drain",
            stderr=[*(f"line {n}" for n in range(40)), *trace],
            traceback="\n".join(trace),
            usage={"user": 0.5, "system": 0.25, "max_rss": 45 << 20},
            versions={"bgworker": "0.1.0", "library": "shop 1.2"},
        ),
    )
    last_exit = {"code": 1, "signal": None, "at": ago(6), "reason": "exit 1: boom"}
    client.facts["slots"] = [slot(3, "drain", reason="exit 1: boom; restarts after 50 s", restart_at=ago(-44), last_exit=last_exit)]
    code, out, err = run("why", "drain")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == 'Background worker "drain" (3.1) is not running: exit 1: boom; restarts after 50 s.'
    assert lines[1].startswith("The next try is in 4")
    assert lines[2].startswith("Its last life ended 6.")
    assert lines[2].endswith("s ago: exit 1: boom, after 0.8s.")
    assert lines[3] == "It has failed 2 times within the last hour."
    assert lines[4] == "In that life: processor time 0.8s, memory at most 45M, shop 1.2, bgworker 0.1.0."
    assert [line[2:] for line in lines[7:27]] == [*(f"line {n}" for n in range(23, 40)), *trace]
    assert "1m30s ago  exit 1: boom, after 0.8s" in out
    assert "Start it now, without waiting: bgworker start drain" in out
    assert "not this one" not in out


def test_the_same_as_json(history: Any, client: Any, run: Run) -> None:
    """--json has the same chain, and whole records, the latest first."""
    history(an_exit("drain", 90, n=1), an_exit("drain", 6, n=2))
    client.facts["slots"] = [slot(3, "drain", reason="exit 1: boom; restarts after 50 s", restart_at=ago(-44))]
    code, out, _ = run("why", "3.1", "--json")
    found = json.loads(out)
    assert code == 0
    assert found.keys() == {"format", "bgw_name", "handle", "state", "chain", "restart_at", "exits", "advice"}
    assert (found["format"], found["handle"], found["state"]) == (1, "3.1", "waiting_restart")
    assert [record["n"] for record in found["exits"]] == [2, 1]


def test_a_long_traceback_stands_whole(history: Any, client: Any, run: Run) -> None:
    """A traceback longer than the lines that are kept is printed in their place."""
    trace = ["Traceback (most recent call last):", *(f"  frame {n}" for n in range(100)), "RuntimeError: boom"]
    history(an_exit("drain", stderr=trace[-50:], traceback="\n".join(trace)))
    client.facts["slots"] = [slot(3, "drain")]
    _, out, _ = run("why", "drain")
    assert "  Traceback (most recent call last):\n    frame 0\n" in out
    assert out.count("frame 99") == 1


def test_a_chain_goes_through_those_that_are_awaited(history: Any, client: Any, run: Run) -> None:
    """A worker that waits for another is explained by that one's reason, and a circle ends."""
    client.facts["slots"] = [
        slot(1, "b", reason="waits for a: it is not ready", config={"after": ["a:ready"]}, state="not_yet_started"),
        slot(2, "a", reason="failed to start: no module named x; waits for b", config={"after": ["b:started"]}),
    ]
    _, out, _ = run("why", "b")
    lines = out.splitlines()
    assert lines[0].startswith('Background worker "b" (1.1) is not running: waits for a')
    assert lines[1].startswith('Background worker "a" (2.1) is not running: failed to start')
    assert len([line for line in lines if line.startswith("Background worker")]) == 2


def test_a_database_is_awaited(history: Any, client: Any, run: Run) -> None:
    """A worker that waits for the database is explained by the database."""
    client.facts["host"] = {"database": {"kind": "external", "phase": "unreachable", "detail": "connection refused"}}
    client.facts["slots"] = [slot(1, "a", state="not_yet_started", reason="waits for the database to accept connections: starts")]
    _, out, _ = run("why", "a")
    assert out.splitlines()[1] == "The external database is in phase unreachable: connection refused."


@pytest.mark.parametrize(
    ("asked_by", "sentence"),
    [
        ({"who": "operator", "uid": 7, "pid": 9, "what": "x"}, "That was asked for by user id 7 over the control socket (PID 9)."),
        ({"who": "worker", "worker": "1.2", "pid": 9, "what": "x"}, "That was asked for by background worker 1.2 (PID 9)."),
        ({"who": "reload", "what": "x"}, "That was asked for by a reload."),
        ({"who": "shutdown", "what": "x"}, None),
        (None, None),
        ("nonsense", None),
    ],
)
def test_who_asked(history: Any, client: Any, run: Run, asked_by: Any, sentence: str | None) -> None:
    """Who asked for the last exit is said where it is known."""
    history(an_exit("a", asked_by=asked_by, was_requested=True, reason="exit 1, as asked: x"))
    client.facts["slots"] = [slot(1, "a", state="started", pid=5, started_at=ago(3))]
    _, out, _ = run("why", "a")
    assert out.startswith('Background worker "a" (1.1) runs since ')
    assert (sentence in out.splitlines()) if sentence else ("asked for by" not in out)
    assert "failed" not in out


def test_out_of_memory(history: Any, client: Any, run: Run) -> None:
    """The hint of the OOM killer is said as what it is, with what to do."""
    history(an_exit("a", code=None, signal=9, reason="signal 9 (Killed)", oom_kill=True))
    client.facts["slots"] = [slot(1, "a", reason="crash: signal 9 (Killed); restarts at once")]
    _, out, _ = run("why", "a")
    assert "OOM killer was at work at that moment" in out
    assert "Give the worker less to hold in memory" in out


def test_one_that_is_over(history: Any, client: Any, run: Run, tmp_path: Path) -> None:
    """A static worker can be started, a dynamic one must be registered again; the file tells which it is."""
    history(an_exit("a"), an_exit("job"))
    client.facts["finished"] = [
        {"bgw_name": n, "slot": 1, "generation": 1, "last_exit": None, "reason": "exit 0"} for n in ("a", "job")
    ]
    table = '[[worker]]\nbgw_name = "a"\nbgw_library_name = "x"\nbgw_function_name = "y"\n'
    (tmp_path / "workers.toml").write_text(table)
    assert "Start it: bgworker start a" in run("why", "a")[1]
    assert "register it again" in run("why", "job")[1]


def test_in_the_file_alone(history: Any, client: Any, run: Run, tmp_path: Path) -> None:
    """A worker that is switched off, or was written into the file since, is explained by the file."""
    table = '[[worker]]\nbgw_name = "{}"\nbgw_library_name = "x"\nbgw_function_name = "y"\nenabled = {}\n'
    (tmp_path / "workers.toml").write_text(table.format("off", "false") + table.format("new", "true"))
    assert "is switched off: workers.toml says enabled = false." in run("why", "off")[1]
    assert "Put the file into effect: bgworker reload" in run("why", "new")[1]


def test_rejected_for_want_of_a_slot(history: Any, client: Any, run: Run) -> None:
    """C14: a worker that got no slot is explained by those who hold them."""
    client.facts["slots"] = [slot(n, f"e{n}", bgw_type="export") for n in range(2)]
    client.facts["rejected"] = [{"bgw_name": "more", "error": "too many background workers: up to 2."}]
    _, out, _ = run("why", "more")
    assert "The slots are held by export (2, shop)." in out


def test_only_the_history_knows_it(history: Any, client: Any, run: Run) -> None:
    """A name that is over for long is found in the history."""
    history(an_exit("old", 3600 * 30))
    _, out, _ = run("why", "old")
    assert 'Background worker "old" (3.2) is over, and its registration with it.' in out
    assert "ended 1d06h ago" in out


def test_the_name_that_instances_share(history: Any, client: Any, run: Run) -> None:
    """It is no name that never was: the instances are named with their states, and one that does not run is pointed to."""
    history(an_exit("loop-5"))
    client.facts["slots"] = [
        slot(1, "loop-1", state="started", config={"instance": 1}),
        slot(2, "loop-2", config={"instance": 2}),
    ]
    client.facts["finished"] = [
        {"bgw_name": "loop-5", "slot": 3, "generation": 2, "last_exit": None, "reason": "scaled away (exit 1)"}
    ]
    code, out, err = run("why", "loop")
    assert (code, out) == (1, "")
    assert err.splitlines() == [
        'ERROR:  background worker "loop" has 2 instances',
        "DETAIL:  They are loop-1 (started), loop-2 (waiting restart).",
        "HINT:  Ask for one of them: bgworker why loop-2. See all: bgworker status loop",
    ]


@pytest.mark.parametrize("is_in_file", [True, False])
def test_an_instance_that_was_scaled_away(history: Any, client: Any, run: Run, tmp_path: Path, is_in_file: bool) -> None:
    """It comes back by scale alone, and was not registered dynamically; whatever the file says."""
    if is_in_file:
        text = '[[worker]]\nbgw_name = "loop"\ninstances = 5\ncommand = ["true"]\n'
        (tmp_path / "workers.toml").write_text(text)
    reason = 'scaled away (exit 1); comes back when "loop" is scaled to 5 or more'
    client.facts["finished"] = [{"bgw_name": "loop-5", "slot": 3, "generation": 2, "last_exit": None, "reason": reason}]
    _, out, _ = run("why", "loop-5")
    assert f'Background worker "loop-5" (3.2) is over: {reason}.\n' in out
    assert "Bring it back: bgworker scale loop 5\n" in out
    assert "dynamically" not in out
    assert "bgworker start" not in out


def test_a_name_that_never_was(history: Any, client: Any, run: Run) -> None:
    """A name of nobody is an error with the nearest name, those of the history included, and with the broken plugins."""
    history(an_exit("old-drain"))
    client.facts["broken_plugins"] = [{"name": "shop", "error": "x"}]
    code, out, err = run("why", "old-drian")
    assert (code, out) == (1, "")
    assert err.splitlines() == [
        'ERROR:  there is no background worker "old-drian", and never was one',
        "DETAIL:  Plugins that are broken register no workers: shop.",
        'HINT:  The nearest is "old-drain".',
    ]


def test_an_ambiguous_name(history: Any, client: Any, run: Run) -> None:
    """A name that several bear is refused with the list."""
    client.facts["slots"] = [slot(1, "a"), slot(2, "a")]
    code, _, err = run("why", "a")
    assert code == 1
    assert "It is the name of 1.1, 2.1." in err


def test_with_the_host_down(history: Any, no_host: None, run: Run) -> None:
    """With the host down the files tell, and the exit code is 3; one that its host took along is told as that."""
    history(an_exit("a"), {"event": "started", "bgw_name": "b", "slot": 1, "generation": 1, "at": ago(9)})
    code, out, err = run("why", "a")
    assert code == 3
    assert out.startswith('Background worker "a" (3.2) is not running: the host is down.')
    assert "exit 1: boom, after 0.8s" in out
    assert err.startswith("ERROR:  no host is running")
    assert "It was running when its host was killed" in run("why", "b")[1]


def test_history_of_a_newer_host(history: Any, client: Any, run: Run) -> None:
    """Records with missing, other or hostile values are told as far as they go."""
    history(
        {"event": "exited", "bgw_name": "a"}, an_exit("a", uptime="x", usage=[], versions=1, stderr=["\x1b[2J"], reason="\x1b]0;")
    )
    client.facts["slots"] = [slot(1, "a", reason="\x1b[31mred")]
    code, out, _ = run("why", "a")
    assert code == 0
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("text", "stamp"),
    [
        ("2026-11-21T10:00:01.5+01:00", "2026-11-21 09:00:01.500"),
        ("2026-11-21T09:00:01Z", "2026-11-21 09:00:01.000"),
        ("2026-11-21 09:00", "2026-11-21 09:00:00.000"),
        ("2026-11-21", "2026-11-21 00:00:00.000"),
        ("999999999d", ""),
    ],
)
def test_since_is_an_instant(text: str, stamp: str) -> None:
    """--since takes RFC 3339, in UTC where no zone is named, and durations of any length."""
    assert logs_module._since(text) == stamp


def test_since_is_so_long_ago() -> None:
    """--since 10m is ten minutes ago."""
    at = datetime.fromisoformat(logs_module._since("10m")).replace(tzinfo=UTC)
    assert timedelta(minutes=9) < datetime.now(UTC) - at < timedelta(minutes=11)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--since", "yesterday"), '"yesterday" is neither a duration, as 10m, nor a time, as 2026-01-31T08:00:00Z'),
        (("--since", "-5m"), '"-5m" is neither'),
        (("--grep", "("), '"(" is not a regular expression'),
    ],
)
def test_wrong_words_for_logs(history: Any, run: Run, words: tuple[str, ...], error: str) -> None:
    """A wrong instant or expression is a usage error that names it."""
    code, _, err = run("logs", *words)
    assert code == 2
    assert error in err


@pytest.fixture
def written(history: Any, client: Any, tmp_path: Path) -> None:
    """Two workers, of which one has written."""
    (tmp_path / "data" / "log" / "workers").mkdir(parents=True)
    line = "2026-01-31 08:00:00.000 UTC [3.1 17] drain: hello\n"
    (tmp_path / "data" / "log" / "workers" / "drain.log").write_text(line)
    client.facts["slots"] = [slot(3, "drain"), slot(4, "order drain", bgw_type="orders")]


@pytest.mark.parametrize(("name", "hint"), [("drian", 'The nearest is "drain".'), ("hots", 'The nearest is "host".')])
def test_logs_of_a_name_that_nobody_bears(written: None, run: Run, name: str, hint: str) -> None:
    """The error names workers, not files, and the one that was probably meant."""
    code, out, err = run("logs", name)
    assert (code, out) == (1, "")
    assert err == f'ERROR:  no line is from "{name}"\nDETAIL:  The workers are: drain, order drain.\nHINT:  {hint}\n'


@pytest.mark.parametrize("options", [("--since", "1h"), ("--grep", "hello"), ("-n", "0"), ("-f",), ("drain",)])
def test_logs_of_a_name_that_nobody_bears_in_every_way(written: None, run: Run, options: tuple[str, ...]) -> None:
    """Followed, narrowed down or beside others: a name that nobody bears is never passed over in silence, or waited for."""
    code, out, err = run("logs", *options, "drian")
    assert code == 1
    assert ("hello" in out) == (options == ("drain",))
    assert err.startswith('ERROR:  no line is from "drian"\n')
    assert err.endswith('HINT:  The nearest is "drain".\n')


def test_known_names_without_a_line_beside_others(written: None, run: Run) -> None:
    """What was asked for has been printed; a worker that wrote nothing is no error then."""
    assert run("logs", "drain", "order drain") == (0, "2026-01-31 08:00:00.000 UTC [3.1 17] drain: hello\n", "")


def test_logs_of_workers_that_only_files_know(written: None, history: Any, run: Run, tmp_path: Path) -> None:
    """Those of the history, and of workers.toml, are known, and so is a slot that is free."""
    history(an_exit("past", bgw_type="jobs"))
    (tmp_path / "workers.toml").write_text('[[worker]]\nbgw_name = "new"\nbgw_type = "kind"\ncommand = ["true"]\n')
    names = ("past", "jobs", "3.2", "new", "kind", "loader")
    for name in names:
        assert run("logs", name) == (1, "", f'ERROR:  no line is from "{name}"\nDETAIL:  It has written nothing.\n')
    assert 'The nearest is "new".' in run("logs", "neww")[2]


@pytest.mark.parametrize("name", ["order drain", "orders", "4", "4.1"])
def test_logs_of_a_worker_that_is_silent(written: None, run: Run, name: str) -> None:
    """It is there, and has written nothing: that is all there is to say."""
    assert run("logs", name) == (1, "", f'ERROR:  no line is from "{name}"\nDETAIL:  It has written nothing.\n')
