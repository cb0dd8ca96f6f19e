"""Text that would drive a terminal, from every source, through every view: none of it is obeyed (T61).

Sources: what workers print, report and raise, plugins' metadata and failures, workers.toml, the
command line's own arguments, what clients send, notifications, database names. Worker names cannot
hold such text; that they are refused is tested here, too, for the refusal quotes them.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import psycopg
import pytest

from bgworker._text import is_inert
from bgworker.cli import main
from bgworker.testing import RunningHost
from tests.end_to_end.terminals import Terminal
from tests.end_to_end.test_attacks import raw_connection
from tests.plugins.making import make_distribution

MakeHost = Callable[..., RunningHost]
MakeTerminal = Callable[..., Terminal]

#: Title, clipboard (OSC 52), colours in C0 and C1, device control, bidi, DEL, separators, markup of rich, overprinting.
EVIL = "\x1b]0;owned\x07\x1b]52;c;b3duZWQ=\x07\x1b[35;45m\x9b35m\x90q\x9c\u202e\u2066\x7f\u2028\x85[/bold][red][/ :boom:\rover"
#: What of it can be told from what the live view itself sends to a terminal.
TRACES = ("\x1b]", "\x07", "\x1b[35", "\x9b", "\x90", "\x9c", "\u202e", "\u2066", "\x7f", "\u2028", "\x85", "\rover")
TOML_EVIL = json.dumps(EVIL).replace("\x7f", "\\u007f")

TASKS = f'''
"""Workers that mean ill."""
import os, sys
from bgworker import worker

EVIL = {EVIL!r}

def talk(arg):
    worker.unblock_signals()
    worker.report_activity(EVIL, EVIL)
    print(EVIL)
    print(EVIL, file=sys.stderr)
    os.write(1, b"\\x9b35m" + EVIL.encode("utf-8", "replace") + b"\\n")
    sys.stderr.flush()
    while True:
        worker.report_activity(EVIL, EVIL)
        worker.wait_latch(wait_event=EVIL)
        worker.reset_latch()

def fail(arg):
    raise RuntimeError(EVIL)

def leave(arg):
    raise SystemExit(EVIL)
'''
CONFIGURATION = """
[host]
max_worker_processes = 16
shutdown_timeout = 2.0
shared_preload_libraries = ["broken", "evil_plugin"]
"""


def table(name: str, function: str, restart: str = "3600") -> str:
    """Return a [[worker]] table."""
    return (
        f'[[worker]]\nbgw_name = "{name}"\nbgw_library_name = "tasks"\nbgw_function_name = "{function}"\n'
        f"bgw_restart_time = {restart}\n"
    )


WORKERS = table("talker", "talk") + table("[/bold] raiser [", "fail") + table("leaver", "leave", '"BGW_NEVER_RESTART"')


def traces(text: str) -> set[str]:
    """Return what a terminal would obey in text that is for a pipe."""
    return {character for character in text if character != "\n" and not is_inert(character)}


@pytest.fixture(scope="module")
def evil_place() -> Iterator[Path]:
    """A directory of plugins whose metadata mean ill, on everybody's path."""
    with tempfile.TemporaryDirectory(prefix="bgworker-test-") as name, pytest.MonkeyPatch.context() as patch:
        place = Path(name)
        place.chmod(0o711)
        make_distribution(
            place,
            "evil",
            metadata=f"Metadata-Version: 2.1\nName: evil{EVIL[:20]}\nVersion: 1{EVIL[:20]}\n",
            entry_points=f"[bgworker.plugins]\nevil_plugin = tasks{EVIL[:20]}\n"
            f"[bgworker.workers]\nw{EVIL[:20]} = a:b\n[bgworker.commands]\nc{EVIL[:20]} = a:b{EVIL[:20]}\n",
        )
        make_distribution(place, "evil2", entry_points={"bgworker.commands": {f"x{EVIL[:8]}\x9b": "a:b"}})
        patch.setenv("PYTHONPATH", str(place))
        yield place


@pytest.fixture(scope="module")
def shop(evil_place: Path) -> Iterator[RunningHost]:
    """A host with everything that means ill, all of it at work."""
    directory = evil_place / "host"
    directory.mkdir()
    (directory / "tasks.py").write_text(TASKS)
    (directory / "broken.py").write_text(f"raise ImportError({EVIL!r})\n")
    host = RunningHost(directory, CONFIGURATION + WORKERS)
    host.start_and_wait()
    try:
        host.wait_for_worker("talker")
        host.wait_for_worker("[/bold] raiser [", "waiting_restart")
        host.wait_until(lambda: host.finished("leaver"), "one is over")
        host.wait_until(lambda: host.log("talker").count("over") >= 3, "it has printed")
        with raw_connection(host) as connection:
            for request in ({"id": 1, "method": EVIL}, {"id": 2, "method": "find", "params": {"name": EVIL}}):
                connection.sendall(json.dumps(request).encode() + b"\n")
            connection.sendall(b'{"id":3,"' + EVIL.encode() + b"\n")
        yield host
    finally:
        host.close()


COMMANDS = [
    "status", "status --all", "status --json", "status --failed", "status --check", "status EVIL", "status --json EVIL",
    "logs", "logs -n 5 talker", "logs EVIL", "logs host", "plugins", "plugins --json", "check", "check --json",
    "register EVIL:EVIL", "register tasks:idle --name EVIL", "register tasks:idle --arg EVIL", "register tasks:idle --type EVIL",
    "register tasks:idle --wake-on EVIL", "register tasks:idle --extra EVIL", "register tasks:idle --restart-time EVIL",
    "register tasks:fail --name failing --wait", "register tasks:EVIL --wait --name missing", "start EVIL", "restart EVIL",
    "terminate EVIL", "signal EVIL", "signal -s EVIL talker", "wait EVIL", "wait leaver --shutdown", "wait leaver --timeout EVIL",
    "EVIL", "--EVIL", "status --EVIL", "stop EVIL", "listen EVIL", "notify EVIL EVIL", "pg EVIL", "psql EVIL", "-D EVIL status",
    "-c EVIL status", "-c EVIL check", "-D EVIL logs", "--help", "reload", "schema", "why EVIL", "why talker",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_reaches_a_pipe(
    shop: RunningHost, evil_place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """T61: whatever a command shows or quotes, a terminal would obey none of it, and no text is a traceback."""
    monkeypatch.setenv("BGWORKER_CONFIG", str(shop.config_path))
    monkeypatch.chdir(shop.directory)
    monkeypatch.setattr(sys, "path", [str(evil_place), *sys.path])
    main([word.replace("EVIL", EVIL) for word in command.split()])
    output, errors = capsys.readouterr()
    assert traces(output) == set()
    assert traces(errors) == set()
    assert output + errors
    assert "Traceback (most recent call last)" not in errors or "check" in command


#: What is wrong in each, and quoted; a host refuses the first six at its start.
WRONG = [
    f"{TOML_EVIL} = 1\n",
    f"[host]\n{TOML_EVIL} = 1\n",
    f"[host]\nlog = {TOML_EVIL}\ncrash_scope = {TOML_EVIL}\ncontrol_group = {TOML_EVIL}\n",
    f"[[worker]]\nbgw_name = {TOML_EVIL}\nbgw_library_name = {TOML_EVIL}\nbgw_function_name = {TOML_EVIL}\n{TOML_EVIL} = 1\n",
    f"[[worker]]\nbgw_name = 'x'\nbgw_library_name = 'a'\nbgw_function_name = 'b'\nwake_on = [{TOML_EVIL}]\nbgw_type = 7\n",
    EVIL,
    f"[host]\nshared_preload_libraries = [{TOML_EVIL}]\n",
    f"[host]\npython_path = [{TOML_EVIL}]\n[settings.{TOML_EVIL}]\nx = 1\n",
    f"[database]\nurl = {TOML_EVIL}\n",
    "[database]\nurl = 'postgresql://h/x?%1b]0;owned%07=1'\n",
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_nothing_of_a_configuration(
    evil_place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """T61: what is wrong in workers.toml is quoted by `check` and `run`, and inert."""
    directory = Path(tempfile.mkdtemp(dir=evil_place))
    path = directory / "workers.toml"
    path.write_text(WRONG[number])
    monkeypatch.chdir(directory)
    for verb in ("check", "run") if number < 6 else ("check",):
        assert main(["-c", str(path), verb]) != 0
        output, errors = capsys.readouterr()
        assert output + errors
        assert traces(output + errors) == set()
        assert "Traceback" not in errors
    shutil.rmtree(directory)


def test_logs_that_are_followed(shop: RunningHost) -> None:
    """T61: `logs -f` passes on what it finds in the files, even what somebody else has put there, and nothing that acts."""
    follow = subprocess.Popen(
        [sys.executable, "-P", "-m", "bgworker", "logs", "-f", "-D", str(shop.data_directory)],
        stdout=subprocess.PIPE, text=True, errors="replace",
    )  # fmt: skip
    try:
        assert follow.stdout is not None
        first = follow.stdout.readline()
        with (shop.data_directory / "log" / "workers" / "talker.log").open("a") as file:
            file.write(f"forged {EVIL}\n")
        text = first
        while "forged" not in (line := follow.stdout.readline()):
            assert line
            text += line
        assert traces(text + line) == set()
    finally:
        follow.kill()
        follow.communicate()


@pytest.mark.parametrize("arguments", ["status", "status --watch", "status --all", "plugins", "logs", "check"])
def test_nothing_reaches_a_terminal(shop: RunningHost, terminal: MakeTerminal, arguments: str) -> None:
    """T61: on a terminal the view's own sequences are the only ones; markup stands there as it was written."""
    view = terminal(shop, *arguments.split(), size=(200, 50))
    if "--watch" in arguments:
        view.wait_for(r"talker +started")
        assert shop.run_cli("register", "tasks:fail", "--name", "another", "--restart-time", "3600").returncode == 0
        # Its event line, with the reason.
        before = view.text
        view.wait_for(r"another \(\d+\) exited with code 1")
        view.text += before
        view.type("q")
    view.wait()
    assert view.text
    assert [trace for trace in TRACES if trace in view.text] == []
    assert "Traceback" not in view.text or arguments in ("logs", "check")
    if arguments == "status --all":
        assert "[/bold] raiser [" in view.text


@pytest.mark.parametrize("is_textual_there", [True, False])
def test_run_with_the_view(evil_place: Path, terminal: MakeTerminal, is_textual_there: bool) -> None:
    """T61: `run --tui` beside workers and plugins that mean ill: drawn, not obeyed, up to its end."""
    directory = evil_place / f"tui{is_textual_there:d}"
    directory.mkdir()
    environment = {}
    if not is_textual_there:
        # Found before the installed one, and not importable: then there is the rich view.
        (directory / "without").mkdir()
        (directory / "without" / "textual.py").write_text("raise ImportError('no')\n")
        environment["PYTHONPATH"] = str(directory / "without")
    (directory / "tasks.py").write_text(TASKS)
    (directory / "broken.py").write_text(f"raise ImportError({EVIL!r})\n")
    host = RunningHost(directory, CONFIGURATION + WORKERS)
    # Of fewer than 35 lines: textual says where it writes, and the 35th line would be a trace.
    view = terminal(host, "run", "--tui", size=(200, 34), **environment)
    view.wait_for(r"talker +(\x1b\[[\d;]*m)*started")
    everything = view.text
    host.wait_until(lambda: host.finished("leaver"), "one is over")
    assert host.run_cli("register", "tasks:leave", "--name", "last").returncode == 0
    view.wait_for(r"last")
    everything += view.text
    view.type("q")
    assert view.wait() == 0
    everything += view.text
    assert [trace for trace in TRACES if trace in everything] == []
    # The plugin's own is shown as what it is, a reason; one of ours would begin a line, or be in a box of textual's.
    assert re.search(r"(\n|─ )Traceback", everything) is None


def test_lines_of_a_host_on_a_terminal(evil_place: Path, terminal: MakeTerminal) -> None:
    """T61: `run` on a terminal prints log lines there, with what workers print and raise in them."""
    directory = evil_place / "lines"
    directory.mkdir()
    (directory / "tasks.py").write_text(TASKS)
    (directory / "broken.py").write_text(f"raise ImportError({EVIL!r})\n")
    host = RunningHost(directory, CONFIGURATION + WORKERS)
    view = terminal(host, "run", "--log", "both")
    view.wait_for(r"RuntimeError")
    host.wait_until(lambda: host.log("talker").count("over") >= 3, "it has printed")
    view.type("\x03")
    before = view.text
    assert view.wait() == 0
    assert "host is shut down" in view.text
    # The terminal's own answer to a line feed is a carriage return.
    assert [trace for trace in TRACES if trace in before + view.text] == []
    # With the host down, the files tell.
    for command in ("status", "status --json", "logs", "status --check"):
        done = host.run_cli(*command.split())
        assert traces(done.stdout + done.stderr) == set(), command


def test_notifications_and_database_names(bgworker_database: str, make_host: MakeHost, terminal: MakeTerminal) -> None:
    """T61: names of databases and roles, channels, payloads and the server's own errors are inert in every view."""
    name = EVIL.replace("\r", "").encode()[:60].decode("utf-8", "ignore")
    with psycopg.connect(bgworker_database, autocommit=True) as connection:
        connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
        try:
            url = urlsplit(bgworker_database)._replace(path="/" + quote(name, safe="")).geturl()
            _drive_database(make_host, terminal, url)
        finally:
            connection.execute(psycopg.sql.SQL("DROP DATABASE {} WITH (FORCE)").format(psycopg.sql.Identifier(name)))


def _drive_database(make_host: MakeHost, terminal: MakeTerminal, url: str) -> None:
    tasks = (
        "from bgworker import worker\ndef idle(arg):\n    worker.unblock_signals()\n    worker.connect()\n"
        "    for _ in worker.latch_loop():\n        pass\n"
        f"def stranger(arg):\n    worker.unblock_signals()\n    worker.initialize_connection({EVIL!r}, {EVIL!r})\n"
    )
    flags = 'bgw_flags = ["BGWORKER_SHMEM_ACCESS", "BGWORKER_BACKEND_DATABASE_CONNECTION"]\nwake_on = ["orders"]\n'
    workers = table("idle", "idle") + flags + table("stranger", "stranger") + flags
    # TOML has no escape for what a url quotes anyhow.
    host = make_host(f"[host]\nmax_worker_processes = 8\n[database]\nurl = {json.dumps(url)}\n" + workers, tasks=tasks)
    host.start_and_wait()
    host.wait_for_worker("idle")
    host.wait_for_worker("stranger", "waiting_restart")
    listen = subprocess.Popen(
        [sys.executable, "-P", "-m", "bgworker", "listen", EVIL[:10], "orders", "--count", "2", "-c", str(host.config_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=host.directory,
    )  # fmt: skip
    assert listen.stderr is not None
    said = listen.stderr.readline()
    assert "listening on" in said
    view = terminal(host, "status", "--watch", size=(200, 50))
    view.wait_for(r"idle +started")
    before = view.text
    with psycopg.connect(url, autocommit=True) as connection:
        for channel in (EVIL[:10], "orders"):
            connection.execute("SELECT pg_notify(%s, %s)", (channel, EVIL))
    view.wait_for(r"notify orders")
    before += view.text
    view.type("q")
    view.wait()
    assert [trace for trace in TRACES if trace in before + view.text] == []
    output, errors = listen.communicate(timeout=60)
    assert output.count("over") == 2
    assert traces(said + output + errors) == set()
    for command in ("status", "status --json", "status --check", "logs", f"notify {'x' * 64}{EVIL}", f"notify {EVIL} {EVIL}"):
        done = host.run_cli(*command.split(" "))
        assert traces(done.stdout + done.stderr) == set(), command


def test_names_of_workers_cannot_hold_it(shop: RunningHost) -> None:
    """T61: a registration over the wire with such a name, type, library or function is refused, in words that are inert."""
    good = {"bgw_name": "n", "bgw_library_name": "tasks", "bgw_function_name": "idle"}
    with raw_connection(shop) as connection:
        lines = connection.makefile("rw", encoding="utf-8", newline="\n")
        for key in ("bgw_name", "bgw_type", "bgw_library_name", "bgw_function_name"):
            lines.write(json.dumps({"id": key, "method": "register", "params": {"worker": {**good, key: EVIL}}}) + "\n")
            lines.flush()
            reply = json.loads(lines.readline())
            assert reply["id"] == key
            assert "error" in reply, key
            assert traces("".join(str(value) for value in reply["error"].values())) == set()
        lines.close()


def test_titles_of_processes(shop: RunningHost) -> None:
    """T61: what ps shows of workers is inert, too."""
    for slot in shop.status()["slots"]:
        if slot["pid"]:
            title = Path(f"/proc/{slot['pid']}/cmdline").read_bytes().rstrip(b"\0").decode()
            assert traces(title.replace("\0", " ")) == set()
