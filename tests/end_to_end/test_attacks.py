"""What must not harm a host: hostile requests, workers and plugins, and the death of anything at an awkward moment."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import bgworker
from bgworker.testing import RunningHost

MakeHost = Callable[..., RunningHost]

HEAD = "[host]\nmax_worker_processes = 8\nshutdown_timeout = 2.0\n"
TASKS = '''
"""Workers for the tests."""
import os, socket, sys, time
from bgworker import worker

def idle(arg):
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass

def leave(arg):
    sys.exit(arg)

def babble(lines):
    """Write lines of its own on its channel, under the runtime's feet."""
    for fd in range(3, 64):
        try:
            end = socket.socket(fileno=os.dup(fd))
        except OSError:
            continue
        if end.family == socket.AF_UNIX and end.type == socket.SOCK_STREAM:
            for line in lines:
                end.sendall(line.encode() + b"\\n")
    idle(None)
'''


def table(name: str, function: str = "idle", **keys: str) -> str:
    """Return a [[worker]] table; values are TOML."""
    lines = [f'[[worker]]\nbgw_name = "{name}"\nbgw_library_name = "tasks"\nbgw_function_name = "{function}"']
    return "\n".join([*lines, *(f"{key} = {value}" for key, value in keys.items())]) + "\n"


@contextmanager
def raw_connection(host: RunningHost) -> Iterator[socket.socket]:
    """Connect without a client's manners; the greeting has been read."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(host.data_directory / "run" / "control.sock"))
        _data, fds, _flags, _address = socket.recv_fds(connection, 4096, 4)
        for fd in fds:
            os.close(fd)
        yield connection


def ask(connection: socket.socket, line: bytes) -> dict[str, Any]:
    """Send one line and return the next one that comes back."""
    connection.sendall(line + b"\n")
    return answer(connection)


def answer(connection: socket.socket) -> dict[str, Any]:
    """Return the next line."""
    data = b""
    while not data.endswith(b"\n"):
        piece = connection.recv(65_536)
        assert piece, "the host closed the connection"
        data += piece
    line: dict[str, Any] = json.loads(data)
    return line


def host_pid(host: RunningHost) -> int:
    """Return the pid of a host that still runs."""
    assert host.process is not None
    assert host.process.poll() is None, host.report()
    return host.process.pid


def helper(host: RunningHost, name: str) -> int | None:
    """Return the pid of a helper process."""
    pid = host_pid(host)
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            title = Path(f"/proc/{child}/cmdline").read_text().strip("\0")
        except OSError:
            continue
        if title.startswith(f"bgworker: {name}"):
            return int(child)
    return None


def processor_time(pid: int) -> float:
    """Return the seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def use_of_processor(pid: int, seconds: float = 0.5) -> float:
    """Return the share of one processor that a process uses over a while."""
    before, began = processor_time(pid), time.monotonic()
    time.sleep(seconds)  # a rate needs a while; nothing is waited for
    return (processor_time(pid) - before) / (time.monotonic() - began)


REGISTER = b'{"id":1,"method":"register","params":{"worker":{"bgw_name":"x","bgw_library_name":"a","bgw_function_name":"b",'


# -- clients ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b'{"id":1e400,"method":"ping"}',
        b'{"id":{"a":1e400},"method":"ping"}',
        b'{"id":1,"method":"find","params":{"name":"' + b"9" * 5000 + b'"}}',
        b'{"id":1,"method":"terminate","params":{"name":"0.' + b"9" * 5000 + b'"}}',
        b'{"id":1,"method":"wait","params":{"handle":"0.1","for":"startup","timeout":-1' + b"0" * 400 + b"}}",
        REGISTER + b'"bgw_restart_time":1' + b"0" * 400 + b"}}}",
        REGISTER + b'"bgw_main_arg":[1e400]}}}',
    ],
    ids=range(7),
)
def test_numbers_that_json_cannot_say_are_refused(host: RunningHost, line: bytes) -> None:
    """T46: an infinite or endless number in a request is an error of that request."""
    with raw_connection(host) as connection:
        assert ask(connection, line)["error"]["message_primary"]
        assert ask(connection, b'{"id":2,"method":"ping"}') == {"id": 2, "result": {}}


@pytest.mark.parametrize("timeout", [b"1" + b"0" * 400, b"1e300", b"3e6", b"86400"], ids=["integer", "1e300", "35 days", "a day"])
def test_waits_of_any_length(make_host: MakeHost, timeout: bytes) -> None:
    """C36: a wait may be longer than any timer of the kernel; the host goes on and answers it when it ends."""
    host = make_host(HEAD + table("idle"), tasks=TASKS)
    host.start_and_wait()
    host.wait_for_worker("idle")
    with raw_connection(host) as connection:
        wait = b'{"id":1,"method":"wait","params":{"handle":"idle","for":"shutdown","timeout":' + timeout + b"}}"
        connection.sendall(wait + b"\n")
        assert ask(connection, b'{"id":2,"method":"ping"}') == {"id": 2, "result": {}}
        assert host.run_cli("terminate", "idle").returncode == 0
        assert answer(connection)["result"]["status"] == "STOPPED"


def test_peer_that_cannot_be_greeted_does_not_spin_the_host(host: RunningHost) -> None:
    """A client that has shut its reading end before it was greeted loses its connection, and costs no time."""
    os.kill(host_pid(host), signal.SIGSTOP)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(host.data_directory / "run" / "control.sock"))
        connection.shutdown(socket.SHUT_RD)
        os.kill(host_pid(host), signal.SIGCONT)
        assert host.status()["host"]["state"] == "run"
        assert use_of_processor(host_pid(host)) < 0.3


def test_block_of_tiny_requests_does_not_keep_the_others_waiting(host: RunningHost) -> None:
    """Each turn serves a few messages of one peer: a block of 65536 empty lines costs nobody else more than moments."""
    with raw_connection(host) as hostile, raw_connection(host) as honest:
        hostile.setblocking(False)
        assert hostile.send(b"\n" * 65_536) > 32_768
        worst = 0.0
        for number in range(20):
            began = time.monotonic()
            assert ask(honest, b'{"id":%d,"method":"ping"}' % number) == {"id": number, "result": {}}
            worst = max(worst, time.monotonic() - began)
    assert worst < 0.25


def test_unanswered_waits_are_bounded(make_host: MakeHost) -> None:
    """A client that asks for waits without end gets an error, not the host's memory; its others go on."""
    host = make_host(HEAD + table("idle"), tasks=TASKS)
    host.start_and_wait()
    host.wait_for_worker("idle")
    with raw_connection(host) as connection:
        request = b'{"id":1,"method":"wait","params":{"handle":"idle","for":"shutdown"}}\n'
        connection.sendall(request * 4097)
        assert "too many" in answer(connection)["error"]["message_primary"]


def test_accepting_goes_on_after_descriptors_ran_out(host: RunningHost) -> None:
    """T21: a host at its limit of open files does not spin, and accepts again once the limit is lifted."""
    pid = host_pid(host)
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(host.data_directory / "run" / "control.sock"))
        assert use_of_processor(pid) < 0.3
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        connection.settimeout(20)
        data, fds, _flags, _address = socket.recv_fds(connection, 4096, 4)
        for fd in fds:
            os.close(fd)
        assert data.startswith(b'{"bgworker"')


@pytest.mark.parametrize("room", [0, 2], ids=["no descriptor", "too few to start"])
def test_collector_that_cannot_be_started_is_tried_again(host: RunningHost, room: int) -> None:
    """Without descriptors for a helper the host lives, waits between its tries, and has one again in the end."""
    pid = host_pid(host)
    old = helper(host, "collector")
    assert old is not None
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    in_use = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (in_use - 1 if room == 0 else in_use, limits[1]))
    os.kill(old, signal.SIGKILL)
    assert use_of_processor(pid) < 0.3
    host_pid(host)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    host.wait_until(lambda: helper(host, "collector") not in (None, old), "another collector runs")


# -- workers and plugins ----------------------------------------------------------------


def test_worker_that_babbles_on_its_channel_harms_nobody(make_host: MakeHost) -> None:
    """Malformed, repeated and contradicting words on a worker's channel are ignored or refused."""
    lines = [
        '{"type":"started"}', '{"type":"started"}', '{"type":"start_failed"}', '{"type":"start_failed","error":[]}',
        '{"type":"start_failed","error":{"message_primary":{"a":[1e400]}}}', '{"type":["started"]}', '{"type":{}}',
        '{"type":"exiting"}', '{"type":"exiting","error":[[1e400]]}', '{"type":"born","birth":1,"pid":1}',
        '{"id":1e400,"method":"ping"}', '{"id":[],"method":"ping"}', '{"id":1,"method":"stop"}', '{"id":2,"method":"ready_done"}',
        "[" * 1000, "[]", "null", "nonsense", "",
    ]  # fmt: skip
    host = make_host(HEAD + table("babbler", "babble", bgw_main_arg=json.dumps(lines)) + table("idle"), tasks=TASKS)
    host.start_and_wait()
    host.wait_for_worker("babbler")
    host.wait_for_worker("idle")
    assert host.status()["host"]["crash_count"] == 0
    assert host.stop() == 0


def test_workers_hold_no_descriptor_of_each_other(make_host: MakeHost) -> None:
    """T20: births that are asked for together: each clone has its own channel and pipes, and none of its siblings'."""
    config = "[host]\nmax_worker_processes = 24\nshared_preload_libraries = ['tasks']\n"
    host = make_host(config + "".join(table(f"idle {n}") for n in range(20)), tasks=TASKS)
    host.start_and_wait()
    slots = [host.wait_for_worker(f"idle {n}") for n in range(20)]
    counts: dict[str, int] = {}

    def are_as_many() -> bool:
        counts.update({slot["bgw_name"]: len(os.listdir(f"/proc/{slot['pid']}/fd")) for slot in slots})
        # Standard descriptors, channel, lifeline, two tables, the lock, and the two ends of the latch.
        return set(counts.values()) == {10}

    # What a worker opens for a moment while it begins it closes again; a sibling's it would keep.
    host.wait_until(are_as_many, "each has its own descriptors and no other")


NONSENSE_PLUGIN = """
import os, socket
for fd in range(3, 64):
    try:
        end = socket.socket(fileno=os.dup(fd))
    except OSError:
        continue
    if end.family == socket.AF_UNIX:
        end.sendall({line!r}.encode() + b"\\n")
"""


@pytest.mark.parametrize(
    "line",
    ["{}", '{"type":"born"}', '{"type":"born","birth":"x","pid":[]}', '{"type":[]}', '{"type":"ready"}', "nonsense", "[]"],
    ids=range(7),
)
def test_plugin_that_writes_to_the_loaders_channel_is_set_aside(make_host: MakeHost, line: str) -> None:
    """A plugin that writes to descriptors it does not know takes a loader down, not the host."""
    host = make_host(
        HEAD.replace("[host]\n", "[host]\nshared_preload_libraries = ['scribble']\n") + table("idle"),
        tasks=TASKS,
        scribble=NONSENSE_PLUGIN.format(line=line),
    )
    host.start_and_wait()
    host.wait_for_worker("idle")
    assert [each["name"] for each in host.status()["broken_plugins"]] == ["scribble"]


def test_plugin_that_closes_every_descriptor_is_set_aside(make_host: MakeHost) -> None:
    """A plugin that makes itself at home as a daemon would closes the loader's channel: the rest run without it."""
    host = make_host(
        HEAD.replace("[host]\n", "[host]\nshared_preload_libraries = ['closer']\n") + table("idle"),
        tasks=TASKS,
        closer="import os\nos.closerange(3, 256)\n",
    )
    host.start_and_wait()
    host.wait_for_worker("idle")
    assert [each["name"] for each in host.status()["broken_plugins"]] == ["closer"]


@pytest.mark.parametrize("value", ["nan", "inf", "[" * 62 + "]" * 62], ids=["nan", "inf", "deep"])
def test_setting_that_cannot_cross_to_the_host_is_an_error(make_host: MakeHost, value: str) -> None:
    """A value that TOML has and JSON has not is refused with exit code 2, instead of loaders dying one after another."""
    host = make_host("[host]\nshared_preload_libraries = ['quiet']\n[settings.quiet]\nx = " + value + "\n", tasks=TASKS, quiet="")
    host.start()
    assert host.process is not None
    assert host.process.wait(timeout=30) == 2


def test_storm_of_exits_is_reaped_to_the_last(make_host: MakeHost) -> None:
    """T11: more exits at once than one turn takes: none is left as a zombie until something else happens."""
    count = 600
    config = f"[host]\nmax_worker_processes = {count}\nshared_preload_libraries = ['tasks']\n"
    host = make_host(config, tasks=TASKS)
    host.start_and_wait()
    with host.client() as client:
        for number in range(count):
            client.register_dynamic_background_worker(
                bgworker.BackgroundWorker(bgw_name=f"w{number}", bgw_type="w", bgw_library_name="tasks", bgw_function_name="idle")
            )
        pids = host.wait_until(
            lambda: p if len(p := [s["pid"] for s in client.status()["slots"] if s["state"] == "started"]) == count else None,
            "all have started",
        )
    assert pids is not None
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    host.wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "all are reaped", timeout=20)
    assert host.status()["slots"] == []
    assert host.status()["host"]["crash_count"] == count


def test_storm_of_wishes_on_one_name_ends_as_the_last_one_said(make_host: MakeHost) -> None:
    """C35, T45: terminate, restart and start in any order and number leave one process, or none, and a slot that can be had."""
    host = make_host(HEAD + table("idle"), tasks=TASKS)
    host.start_and_wait()
    host.wait_for_worker("idle")
    with raw_connection(host) as connection:
        for number in range(300):
            method = ("restart", "terminate", "start", "restart", "start")[number % 5].encode()
            message = ask(connection, b'{"id":%d,"method":"%s","params":{"name":"idle"}}' % (number, method))
            assert "result" in message or message["error"]["code"] == "worker_not_found"
    host.wait_until(lambda: all(slot["state"] == "started" for slot in host.status()["slots"]), "it has come to rest")
    host.run_cli("start", "idle")
    host.wait_for_worker("idle")
    assert len([slot for slot in host.status()["slots"] if slot["bgw_name"] == "idle"]) == 1


# -- the helpers, at awkward moments ------------------------------------------------------


def test_stopped_loader_with_births_in_flight_is_replaced(make_host: MakeHost) -> None:
    """A loader that does not answer is replaced; what was asked of it is asked of the next, and nothing runs twice."""
    host = make_host(HEAD, tasks=TASKS)
    host.start_and_wait()
    loader = host.wait_until(lambda: helper(host, "loader"), "there is a loader")
    assert loader is not None
    os.kill(loader, signal.SIGSTOP)
    with host.client() as client:
        handles = [
            client.register_dynamic_background_worker(
                bgworker.BackgroundWorker(bgw_name=f"w{n}", bgw_library_name="tasks", bgw_function_name="idle")
            )
            for n in range(4)
        ]
        for handle in handles:
            assert handle.wait_for_startup(40).status is bgworker.BgwHandleStatus.STARTED
    assert helper(host, "loader") != loader


def test_loader_killed_again_and_again_loses_no_registration(make_host: MakeHost) -> None:
    """C33, T05, T06: every registration ends up with exactly one process, whatever happens to the loader on the way."""
    host = make_host(HEAD.replace("= 8", "= 40"), tasks=TASKS)
    host.start_and_wait()
    with host.client() as client:
        for number in range(40):
            client.register_dynamic_background_worker(
                # Restarted: a clone has its loader's title until it is assigned, and may be the one that is killed here.
                bgworker.BackgroundWorker(
                    bgw_name=f"w{number}", bgw_library_name="tasks", bgw_function_name="idle", bgw_restart_time=0.0
                )
            )
            if number % 10 == 5 and (loader := helper(host, "loader")) is not None:
                os.kill(loader, signal.SIGKILL)
        host.wait_until(lambda: sum(s["state"] == "started" for s in client.status()["slots"]) == 40, "all have started")
    pid = host_pid(host)

    def workers() -> int:
        count = 0
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            try:
                count += Path(f"/proc/{child}/cmdline").read_text().startswith("bgworker: w")
            except OSError:  # what a loader that was killed had begun may just be going
                continue
        return count

    assert workers() == 40


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_shutdown_while_plugins_are_imported(make_host: MakeHost, signum: signal.Signals) -> None:
    """C39, T75: told to stop before anything is ready, the host is gone at once, with exit code 0, and blames nobody."""
    plugin = "import time\nfrom bgworker import hookimpl\n@hookimpl\ndef bgworker_ready(host): pass\ntime.sleep(1.5)\n"
    host = make_host("[host]\nshared_preload_libraries = ['slow']\n" + table("idle"), tasks=TASKS, slow=plugin)
    host.start()
    host.wait_until(lambda: helper(host, "loader") and host.status()["host"]["state"] == "starting", "it is starting")
    began = time.monotonic()
    assert host.stop(signum) == 0, host.report()
    assert time.monotonic() - began < 1.4
    assert "set aside" not in host.log()


def test_reload_during_the_start_is_answered(make_host: MakeHost, tmp_path: Path) -> None:
    """A reload that overtakes the first loader is the start, and whoever asked for it hears what it did."""
    mark = tmp_path / "second"
    plugin = f"import os, time\ntime.sleep(0.2 if os.path.exists({str(mark)!r}) else 5)\n"
    host = make_host("[host]\nshared_preload_libraries = ['slow']\n" + table("idle"), tasks=TASKS, slow=plugin)
    host.start()
    host.wait_until(lambda: host.status()["host"]["state"] == "starting", "it is starting")
    # The first loader has looked before the mark is made, or the reload has nothing to overtake: either is fine.
    mark.touch()
    with raw_connection(host) as connection:
        assert "changes" in ask(connection, b'{"id":1,"method":"reload"}')["result"]
    host.wait_for_worker("idle")


def test_reload_asked_during_a_reload_reads_the_file_again(make_host: MakeHost, tmp_path: Path) -> None:
    """C25: whoever saves the file and then asks is answered by a loader that was started after that."""
    mark = tmp_path / "loading"
    plugin = f"import time\nopen({str(mark)!r}, 'a').write('x')\ntime.sleep(0.7)\n"
    head = "[host]\nmax_worker_processes = 8\nshared_preload_libraries = ['slow']\n"
    host = make_host(head, tasks=TASKS, slow=plugin)
    host.start_and_wait()
    with raw_connection(host) as first, raw_connection(host) as second:
        first.sendall(b'{"id":1,"method":"reload"}\n')
        host.wait_until(lambda: mark.read_text() == "xx", "the first reload has read the file")
        host.config_path.write_text(head + table("idle"))
        changes = ask(second, b'{"id":2,"method":"reload"}')["result"]["changes"]
        assert [change["bgw_name"] for change in changes] == ["idle"]
        assert answer(first)["result"]["changes"] == []


def test_reload_is_given_up_by_a_shutdown(make_host: MakeHost, tmp_path: Path) -> None:
    """A reload that is going on when the shutdown begins is refused, and the exit code stays 0."""
    mark = tmp_path / "loading"
    plugin = (
        f"import os, time\nfrom bgworker import hookimpl\n@hookimpl\ndef bgworker_ready(host): pass\n"
        f"os.path.exists({str(mark)!r}) and time.sleep(1)\nopen({str(mark)!r}, 'a').write('x')\n"
    )
    host = make_host("[host]\nshared_preload_libraries = ['slow']\n" + table("idle"), tasks=TASKS, slow=plugin)
    host.start_and_wait()
    host.wait_for_worker("idle")
    with raw_connection(host) as connection:
        connection.sendall(b'{"id":1,"method":"reload"}\n')
        assert ask(connection, b'{"id":2,"method":"ping"}') == {"id": 2, "result": {}}
        host.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
        assert "shutting down" in answer(connection)["error"]["message_primary"]
    assert host.stop() == 0


def test_replaced_loader_with_a_broken_configuration_stops_nobody(make_host: MakeHost) -> None:
    """A plugin exchanged under a running host may be at odds with the file: running workers never notice."""
    settings = (
        "from dataclasses import dataclass\nfrom bgworker import hookimpl\n"
        "@dataclass\nclass S:\n    {field}: int = 1\n@hookimpl\ndef bgworker_settings(): return S\n"
    )
    head = "[host]\nshared_preload_libraries = ['plug']\n"
    host = make_host(head + "[settings.plug]\nx = 1\n" + table("idle"), tasks=TASKS, plug=settings.format(field="x"))
    host.start_and_wait()
    pid = host.wait_for_worker("idle")["pid"]
    (host.directory / "plug.py").write_text(settings.format(field="another"))
    loader = helper(host, "loader")
    assert loader is not None
    os.kill(loader, signal.SIGKILL)
    host.wait_until(lambda: "the configuration that was accepted has errors now" in host.log(), "the log says so")
    assert host.status()["host"]["state"] == "run"
    assert (host.slot("idle") or {})["pid"] == pid
    host.config_path.write_text(head + table("idle"))
    assert host.run_cli("reload").returncode == 0
    assert host.run_cli("register", "tasks:idle", "--name", "another", "--wait").returncode == 0


def test_end_of_a_worker_is_logged_even_if_the_collector_dies_with_it(make_host: MakeHost) -> None:
    """A collector killed before it wrote how a worker ended: the next one writes it."""
    host = make_host(HEAD + table("idle", bgw_restart_time="3600"), tasks=TASKS)
    host.start_and_wait()
    pid = host.wait_for_worker("idle")["pid"]
    collector = helper(host, "collector")
    assert collector is not None
    os.kill(collector, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    host.wait_until(lambda: (host.slot("idle") or {}).get("restarts") == 1, "it runs again")
    os.kill(collector, signal.SIGKILL)
    host.wait_until(lambda: f"(PID {pid}) was terminated by signal 9" in host.log("idle"), "its log says how it ended")


def test_database_process_that_is_gone_at_the_shutdown(make_host: MakeHost) -> None:
    """C39: PostgreSQL is shut down in good order even when the process whose work that is cannot do it."""
    host = make_host('[host]\nmax_worker_processes = 4\n[database]\nurl = "embedded"\n')
    host.start_and_wait()
    pid = host_pid(host)
    for _ in range(4):  # each end in a row makes the pause before the next start longer
        old = host.wait_until(lambda: helper(host, "database"), "there is a database process")
        assert old is not None
        os.kill(old, signal.SIGKILL)
        host.wait_until(lambda old=old: helper(host, "database") not in (None, old), "there is another one")  # type: ignore[misc]
    last = helper(host, "database")
    assert last is not None
    os.kill(pid, signal.SIGSTOP)
    os.kill(last, signal.SIGKILL)
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGCONT)
    # One SIGTERM only: a second one asks for an immediate shutdown.
    assert host.process is not None
    assert host.process.wait(timeout=60) == 0
    said = "".join(path.read_text() for path in host.data_directory.rglob("*.log") if "postgres" in path.name)
    assert "received fast shutdown request" in said
    assert "immediate shutdown" not in said


# -- people and the world -----------------------------------------------------------------


def test_smart_shutdown_waits_for_held_handles(make_host: MakeHost) -> None:
    """C39: a connection that holds a handle of a live worker holds a smart shutdown up, whatever its restart time."""
    host = make_host(HEAD, tasks=TASKS)
    host.start_and_wait()
    with raw_connection(host) as watcher:
        with host.client() as client:
            worker = bgworker.BackgroundWorker(
                bgw_name="w", bgw_library_name="tasks", bgw_function_name="idle", bgw_restart_time=1.0
            )
            client.register_dynamic_background_worker(worker).wait_for_startup(20)
            assert ask(watcher, b'{"id":1,"method":"stop","params":{"mode":"smart"}}')["result"] == {"mode": "smart"}
            slot = ask(watcher, b'{"id":2,"method":"status"}')["result"]["slots"][0]
            assert slot["state"] == "started"
        assert host.process is not None
        assert host.process.wait(timeout=20) == 0


def test_hang_up_with_a_closed_pipe_as_input_is_a_reload(make_host: MakeHost) -> None:
    """SIGHUP ends a host whose terminal is gone; a standard input that is a closed pipe is no terminal."""
    host = make_host(HEAD, tasks=TASKS)
    with host.output.open("ab") as output:
        host.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bgworker", "run", "-c", str(host.config_path)],
            stdin=subprocess.PIPE, stdout=output, stderr=output, cwd=host.directory,
        )  # fmt: skip
    assert host.process.stdin is not None
    host.process.stdin.close()
    host.wait_for_state("run")
    host.process.send_signal(signal.SIGHUP)
    host.wait_until(lambda: "configuration reloaded" in host.log(), "it has reloaded")
    assert host.status()["host"]["state"] == "run"


def test_start_brings_a_static_worker_back_as_it_is_configured_now(make_host: MakeHost) -> None:
    """C29: changed by a reload while it was down, it comes back changed, and the next reload can stop it."""
    host = make_host(HEAD + table("w"), tasks=TASKS)
    host.start_and_wait()
    host.wait_for_worker("w")
    assert host.run_cli("terminate", "--wait", "w").returncode == 0
    host.config_path.write_text(HEAD + table("w", bgw_type='"changed"'))
    assert host.run_cli("reload").returncode == 0
    assert host.run_cli("start", "w").returncode == 0
    assert host.wait_for_worker("w")["bgw_type"] == "changed"
    host.config_path.write_text(HEAD)
    assert host.run_cli("reload").returncode == 0
    host.wait_until(lambda: host.slot("w") is None, "it is stopped")


def test_host_without_standard_descriptors(make_host: MakeHost) -> None:
    """Started with 0, 1 and 2 closed, a host keeps its own descriptors off these numbers, and works."""
    host = make_host(HEAD + table("idle"), tasks=TASKS)
    command = 'exec "$0" -P -m bgworker run -c "$1" 0<&- 1>&- 2>&-'
    host.process = subprocess.Popen(["/bin/sh", "-c", command, sys.executable, str(host.config_path)], cwd=host.directory)
    host.wait_for_state("run")
    host.wait_for_worker("idle")
    for fd in (0, 1, 2):
        assert os.readlink(f"/proc/{host_pid(host)}/fd/{fd}") == "/dev/null"


def test_data_directory_removed_while_running(make_host: MakeHost) -> None:
    """T52: without its directory a host cannot be reached, but its workers run, and SIGTERM ends it with code 0."""
    host = make_host(HEAD + table("idle"), tasks=TASKS)
    host.start_and_wait()
    pid = host.wait_for_worker("idle")["pid"]
    remove = ["/bin/rm", "-rf", str(host.data_directory)]
    # The host may make its socket again while the directories around it are being removed.
    host.wait_until(lambda: subprocess.run(remove, check=False, capture_output=True).returncode == 0, "the directory is gone")
    os.kill(pid, signal.SIGKILL)
    host.wait_until(lambda: any_worker(host_pid(host)) not in (None, pid), "it runs again")
    assert host.stop() == 0


def any_worker(pid: int) -> int | None:
    """Return the pid of the worker named idle below a host that cannot be asked."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            if Path(f"/proc/{child}/cmdline").read_text().startswith("bgworker: idle"):
                return int(child)
        except OSError:
            continue
    return None
