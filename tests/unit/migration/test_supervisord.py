"""supervisord.conf becomes [[worker]] tables, and what has no counterpart is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli

from bgworker._config.load import parse_configuration
from bgworker._migration import supervisord
from bgworker.errors import ConfigurationError

#: What every program gets: it starts with the host, whatever a database does.
START = {"bgw_start_time": "BgWorkerStart_PostmasterStart"}

#: What supervisord accepts, in words.
WHOLE = "a whole number"
TRUTH = "true or false (or yes, no, on, off, 1, 0)"
CODES = "a list of numbers from 0 to 255, parted by commas"
SIGNAL = "the name or number of a signal, such as TERM"


def converted(tmp_path: Path, text: str, **environ: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the workers as a TOML parser reads them, and the remarks without their file."""
    path = tmp_path / "supervisord.conf"
    path.write_text(text)
    result = supervisord.convert(str(path), environ)
    remarks = [str(remark).replace(f"{tmp_path}/", "") for remark in result.remarks]
    return tomli.loads(result.text("x")).get("worker", []), remarks


def test_plain_program(tmp_path: Path) -> None:
    """A program keeps its name, words and supervisord's defaults where ours differ."""
    workers, remarks = converted(tmp_path, "[program:web]\ncommand=/bin/cat 'a b' c ; a comment\n")
    assert workers == [{"bgw_name": "web", "command": ["/bin/cat", "a b", "c"], **START, "restart_on": "crash", "stop_timeout": 10}]
    assert remarks == []


def test_every_key_that_has_a_counterpart(tmp_path: Path) -> None:
    """Each key with a counterpart is written as ours."""
    workers, _remarks = converted(
        tmp_path,
        "[program:web]\ncommand=web\ndirectory=%(here)s/app\nuser=www\numask=022\nautostart=false\nautorestart=true\n"
        "stopsignal=int\nstopwaitsecs=30\nstartretries=5\nstartsecs=7\nenvironment=A=1,B=\"x,%%y\",C='z'\n",
    )
    assert workers == [
        {
            "bgw_name": "web",
            "command": ["web"],
            **START,
            "working_directory": f"{tmp_path}/app",
            "user": "www",
            "umask": "022",
            "enabled": False,
            "restart_on": "always",
            "stop_signal": "INT",
            "stop_timeout": 30,
            "restart_backoff": {"healthy_after": 7},
            "environment": {"A": "1", "B": "x,%y", "C": "z"},
        }
    ]


def test_numprocs_makes_a_worker_each(tmp_path: Path) -> None:
    """Each process gets its number where the file asks for it, and all of a group are one type."""
    workers, remarks = converted(
        tmp_path,
        "[program:web]\ncommand=web --port 80%(process_num)02d\nnumprocs=2\n"
        "numprocs_start=1\npriority=5\n[group:shop]\nprograms=web\n",
    )
    assert [(worker["bgw_name"], worker["bgw_type"], worker["command"][-1]) for worker in workers] == [
        ("web_01", "shop", "8001"),
        ("web_02", "shop", "8002"),
    ]
    assert len(remarks) == 2, "what holds for both is said once"
    assert remarks[1] == (
        "supervisord.conf:3: [program:web] numprocs: a [[worker]] for each process, because %(process_num) stands in its command; "
        "one that reads BGWORKER_INSTANCE, 1 to 2, can do with instances = 2"
    )


@pytest.mark.parametrize(
    ("process_name", "name", "were"),
    [
        ("", "web", ", and no longer web_01 to web_03"),
        ("process_name=%(program_name)s-%(process_num)d-of-%(numprocs)d\n", "web-of-3", ", and no longer web-1-of-3 to web-3-of-3"),
        ("process_name=%(process_num)s\n", "web", ", and no longer 1 to 3"),
        ("process_name=same\n", "same", ""),
    ],
)
def test_numprocs_that_differ_in_nothing_but_their_names(tmp_path: Path, process_name: str, name: str, were: str) -> None:
    """They are one worker with instances, and what they are called from now on is said."""
    text = f"[program:web]\ncommand=web --of %(numprocs)d\nnumprocs=3\n{process_name}numprocs_start=1\nenvironment=A=1\n"
    (worker,), remarks = converted(tmp_path, text)
    assert (worker["bgw_name"], worker["instances"], worker.get("bgw_type", name)) == (name, 3, "web" if name != "web" else name)
    assert worker["command"] == ["web", "--of", "3"]
    assert remarks == [
        f"supervisord.conf:3: [program:web] numprocs: its processes are called {name}-1 to {name}-3 here{were}",
    ]


def test_number_in_the_environment_alone(tmp_path: Path) -> None:
    """A program that reads its number under a name of its own keeps a worker for each."""
    workers, remarks = converted(tmp_path, '[program:web]\ncommand=web\nnumprocs=2\nenvironment=N="%(process_num)d"\n')
    assert [worker["environment"] for worker in workers] == [{"N": "0"}, {"N": "1"}]
    assert "because %(process_num) stands in its environment;" in remarks[0]


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("autorestart=false", {"bgw_restart_time": "BGW_NEVER_RESTART"}),
        ("autorestart=unexpected\nexitcodes=0,2", {"restart_on": "crash", "success_exit_codes": [2]}),
        ("autorestart=unexpected\nexitcodes=0", {"restart_on": "crash"}),
        ("autorestart=TRUE\nexitcodes=2", {"restart_on": "always"}),
        ("exitcodes=", {"restart_on": "crash"}),
    ],
)
def test_restart_rules(tmp_path: Path, text: str, keys: dict[str, Any]) -> None:
    """Autorestart and exitcodes become restart_on, success_exit_codes and bgw_restart_time."""
    (worker,), _remarks = converted(tmp_path, f"[program:x]\ncommand=x\n{text}\n")
    assert worker == {"bgw_name": "x", "command": ["x"], **START, "stop_timeout": 10, **keys}


def test_environment_of_supervisord_is_inherited(tmp_path: Path) -> None:
    """What [supervisord] sets for all is written to each; a variable that is only passed on is left to inheritance."""
    (worker,), remarks = converted(
        tmp_path,
        '[supervisord]\nenvironment=A="all",TOKEN="%(ENV_TOKEN)s"\n'
        '[program:x]\ncommand=x %(ENV_PORT)s\nenvironment=B="%(ENV_PORT)s"\n',
        TOKEN="secret",
        PORT="80",
    )
    assert worker["environment"] == {"A": "all", "B": "80"}
    assert worker["command"] == ["x", "80"]
    assert "secret" not in "".join(remarks)
    assert remarks == [
        "supervisord.conf:4: [program:x] command: %(ENV_PORT)s was replaced by what PORT is now",
        "supervisord.conf:5: [program:x] environment: %(ENV_PORT)s was replaced by what PORT is now",
    ]


def test_what_has_no_counterpart_is_said_with_its_line(tmp_path: Path) -> None:
    """No key and no section vanishes without a word."""
    _workers, remarks = converted(
        tmp_path,
        "[unix_http_server]\nfile=/tmp/x\n\n[program:x]\ncommand=x\nstopasgroup=true\nstdout_logfile=/a\ncolour=red\n"
        "[eventlistener:y]\ncommand=y\n[fcgi-program:z]\ncommand=z\n[paint]\na=b\n[program:empty]\nnumprocs=2\n",
    )
    assert [remark.partition(": ")[0] + " " + remark.split(": ")[1] for remark in remarks] == [
        "supervisord.conf:1 [unix_http_server]",
        "supervisord.conf:9 [eventlistener:y]",
        "supervisord.conf:11 [fcgi-program:z]",
        "supervisord.conf:13 [paint]",
        "supervisord.conf:6 [program:x] stopasgroup",
        "supervisord.conf:7 [program:x] stdout_logfile",
        "supervisord.conf:8 [program:x] colour",
        "supervisord.conf:15 [program:empty]",
    ]


def test_defaults_that_are_written_out_are_no_remarks(tmp_path: Path) -> None:
    """A key that says what happens here anyway is taken over in silence."""
    _workers, remarks = converted(tmp_path, "[program:x]\ncommand=x\npriority=999\nstopasgroup=false\nserverurl=AUTO\n")
    assert remarks == []


def test_included_files(tmp_path: Path) -> None:
    """[include] is followed, relative to the file that has it; a pattern that names nothing is said."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "b.conf").write_text("[program:b]\ncommand=b\npriority=1\n")
    workers, remarks = converted(tmp_path, "[include]\nfiles=conf.d/*.conf none/*.ini\n[program:a]\ncommand=a\n")
    assert [worker["bgw_name"] for worker in workers] == ["b", "a"], "in the order of priorities"
    assert remarks[0] == 'supervisord.conf:2: [include] files: "none/*.ini" names no file'


@pytest.mark.parametrize(
    ("line", "accepted", "instead"),
    [
        ("numprocs=abc", WHOLE, "its default is taken, 1: one worker"),
        ("numprocs", WHOLE, "its default is taken, 1: one worker"),
        ("numprocs=2.5", WHOLE, "its default is taken, 1: one worker"),
        ("numprocs_start=x", WHOLE, "its default is taken, 0"),
        ("priority=high", WHOLE, "its default is taken, 999: the worker is written after those with less"),
        ("autostart=maybe", TRUTH, "its default is taken, true: the worker is started with the host"),
        ("autorestart=perhaps", "true, false or unexpected", 'its default is taken, unexpected: restart_on = "crash"'),
        ("autorestart=", "true, false or unexpected", 'its default is taken, unexpected: restart_on = "crash"'),
        ("exitcodes=0,256", CODES, "its default is taken, 0: success_exit_codes is left out"),
        ("exitcodes=none", CODES, "its default is taken, 0: success_exit_codes is left out"),
        ("startsecs=x", WHOLE, "its default is taken, 1: healthy_after, where startretries is set"),
        ("startretries=x", WHOLE, "it is left out, and restart_backoff with it"),
        ("stopsignal=KLL", SIGNAL, "its default is taken, TERM: stop_signal is left out"),
        ("stopsignal=99", SIGNAL, "its default is taken, TERM: stop_signal is left out"),
        ("stopwaitsecs=soon", WHOLE, "its default is taken, 10: stop_timeout = 10"),
        ("umask=999", "an octal number, such as 022", "it is left out: workers inherit theirs"),
        ("stopasgroup=maybe", TRUTH, "it is left out"),
        ("stdout_logfile_maxbytes=much", "a number of bytes, such as 50MB", "it is left out"),
    ],
)
def test_wrong_values_become_supervisords_defaults(tmp_path: Path, line: str, accepted: str, instead: str) -> None:
    """A value that supervisord refuses is named with what it accepts and what is taken instead, and costs no other key."""
    key, _, value = line.partition("=")
    (worker,), remarks = converted(tmp_path, f"[program:x]\ncommand=x\n{line}\n")
    assert remarks == [f'supervisord.conf:3: [program:x] {key}: "{value}" is not {accepted}, as supervisord asks for; {instead}']
    assert worker == {"bgw_name": "x", "command": ["x"], **START, "restart_on": "crash", "stop_timeout": 10}


def test_wrong_umask_of_supervisord_itself(tmp_path: Path) -> None:
    """The one value that all programs inherit is looked at too; a wrong one of a program leaves it that of all."""
    (worker,), (remark,) = converted(tmp_path, "[supervisord]\numask=089\n[program:x]\ncommand=x\n")
    assert remark.startswith('supervisord.conf:2: [supervisord] umask: "089" is not an octal number')
    assert "umask" not in worker
    (worker,), (remark,) = converted(tmp_path, "[supervisord]\numask=7\n[program:x]\ncommand=x\numask=rw\n")
    assert remark.startswith('supervisord.conf:5: [program:x] umask: "rw" is not an octal number')
    assert worker["umask"] == "007"


def test_wrong_value_is_said_once_for_all_processes(tmp_path: Path) -> None:
    """A program of several processes has one remark for one value."""
    text = "[program:x]\ncommand=x %(process_num)d\nnumprocs=3\nnumprocs_start=one\numask=rw\n"
    workers, remarks = converted(tmp_path, text)
    assert [worker["command"][1] for worker in workers] == ["0", "1", "2"]
    assert len([remark for remark in remarks if " is not " in remark]) == 2


def test_values_from_the_environment(tmp_path: Path) -> None:
    """Numbers and truth values may stand in the environment; a wrong one is not shown, for it may be a secret."""
    text = "[program:x]\ncommand=x\nnumprocs=%(ENV_N)s\nautostart=%(ENV_A)s\n"
    (worker,), remarks = converted(tmp_path, text, N="3", A="false")
    assert (worker["instances"], worker["enabled"]) == (3, False)
    assert "supervisord.conf:3: [program:x] numprocs: %(ENV_N)s was replaced by what N is now" in remarks
    (worker,), remarks = converted(tmp_path, text, N="secret", A="true")
    assert "instances" not in worker
    assert remarks[1].startswith('supervisord.conf:3: [program:x] numprocs: "%(ENV_N)s" is not a whole number')
    assert "secret" not in "".join(remarks)


@pytest.mark.parametrize(
    ("line", "keys", "said"),
    [
        ("umask=22", {"umask": "022"}, ""),
        ("umask=0o0027", {"umask": "027"}, ""),
        ("stopsignal=SIGWINCH", {"stop_signal": "WINCH"}, ""),
        ("stopsignal=9", {"stop_signal": "KILL"}, ""),
        ("stopsignal=15", {}, ""),
        ("stopsignal=STOP", {}, "stopsignal: SIGSTOP cannot be sent here, only TERM, "),
        ("stopwaitsecs=0", {"stop_timeout": 1}, "stopwaitsecs: 0 is out of range here, 1 to 86400; stop_timeout = 1"),
        (
            "stopwaitsecs=90000",
            {"stop_timeout": 86400},
            "stopwaitsecs: 90000 is out of range here, 1 to 86400; stop_timeout = 86400",
        ),
        (
            "startretries=3\nautorestart=no",
            {"bgw_restart_time": "BGW_NEVER_RESTART"},
            "startretries: it is left out: a program that is never restarted is not tried again either",
        ),
        ("numprocs=0", {"enabled": False}, "numprocs: 0 is no process at all; one worker is written, with enabled = false"),
    ],
)
def test_values_that_are_written_otherwise_here(tmp_path: Path, line: str, keys: dict[str, Any], said: str) -> None:
    """What supervisord accepts is written as workers.toml has it, or as near to it as there is."""
    text = f"[program:x]\ncommand=x\n{line}\n"
    (worker,), remarks = converted(tmp_path, text)
    restart = {} if "bgw_restart_time" in keys else {"restart_on": "crash"}
    assert worker == {"bgw_name": "x", "command": ["x"], **START, **restart, "stop_timeout": 10, **keys}
    assert [remark.startswith(f"supervisord.conf:3: [program:x] {said}") for remark in remarks] == [True] * bool(said)
    result = supervisord.convert(str(tmp_path / "supervisord.conf"), {})
    parse_configuration(result.text("x") + '[database]\nurl = "postgresql:///x"\n', str(tmp_path / "workers.toml"), {})


@pytest.mark.parametrize(
    "line", ["command='open", "command=x %(nobody)s", "command=x 100%", "environment=A", "stopsignal=KLL", "stopwaitsecs=soon"]
)
def test_values_that_cannot_be_read_are_said(tmp_path: Path, line: str) -> None:
    """A value that makes no sense is named and costs no other key."""
    text = line if line.startswith("command") else f"command=x\n{line}"
    workers, remarks = converted(tmp_path, f"[program:x]\n{text}\n")
    assert len(workers) == 1
    assert len(remarks) == 1
    assert remarks[0].startswith(
        f"supervisord.conf:{2 if line.startswith('command') else 3}: [program:x] {line.partition('=')[0]}: "
    )


@pytest.mark.parametrize("text", ["no section\n", "\xff"])
def test_file_that_is_no_configuration(tmp_path: Path, text: str) -> None:
    """A file that is none is one error."""
    path = tmp_path / "x.conf"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"x\.conf"):
        supervisord.convert(str(path), {})
    with pytest.raises(ConfigurationError, match=r"could not read .*none"):
        supervisord.convert(str(tmp_path / "none"), {})


def test_names_that_meet(tmp_path: Path) -> None:
    """Two workers of one name are written, and said: check refuses them."""
    text = "[program:a]\ncommand=a --port %(process_num)d\nnumprocs=2\nprocess_name=same\n"
    _workers, (_number, *remarks) = converted(tmp_path, text)
    assert remarks == ['supervisord.conf: "same": 2 workers would have this name; give each its own']
