"""supervisord, driven over its XML-RPC interface on a UNIX socket, through one connection that is kept open."""

from __future__ import annotations

import http.client
import socket
import xmlrpc.client
from pathlib import Path
from typing import Any, Final

from benchmarks.environment import peers_python, why_not
from benchmarks.harness import DEADLINE
from benchmarks.peers.way import Call, Way, timed

_CONFIGURATION: Final = """
[unix_http_server]
file={directory}/sock
[supervisord]
logfile={directory}/supervisord.log
pidfile={directory}/pid
nodaemon=true
silent=true
minfds=10000
minprocs=2000
{user}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{directory}/sock
"""
_PROGRAM: Final = """
[program:{name}]
command={command}
process_name=w%(process_num)d
numprocs={count}
numprocs_start={first}
autostart={autostart}
autorestart={autorestart}
startsecs=0
startretries=100
stdout_logfile={directory}/%(program_name)s-%(process_num)d.log
redirect_stderr=true
"""


class Supervisord(Way):
    """Programs of its configuration file: ``s`` starts with it, ``d`` is started on request."""

    name = "supervisord"
    tells = frozenset({"one", "all"})
    #: What runs in the place of the small worker, for questions that have one of their own.
    program = ""

    @classmethod
    def missing(cls) -> str:
        return why_not("supervisord")

    def prepare(self, static: int, dynamic: int) -> None:
        text = _CONFIGURATION.format(directory=self.directory, user="user=root" if Path("/proc/self").stat().st_uid == 0 else "")
        command = self.program or " ".join(self.worker_command("%(process_num)d"))
        for name, first, count in (("s", 0, static), ("d", static, dynamic)):
            if count:
                text += _PROGRAM.format(
                    name=name,
                    command=command,
                    count=count,
                    first=first,
                    autostart="true" if name == "s" else "false",
                    autorestart="true",
                    directory=self.directory,
                )
        (self.directory / "supervisord.conf").write_text(text)
        self._static = static

    def spawn(self) -> None:
        self.run([str(peers_python()), "-m", "supervisor.supervisord", "-c", str(self.directory / "supervisord.conf")])

    def await_ready(self) -> None:
        self.until((self.directory / "sock").exists)
        self._server: Any = xmlrpc.client.ServerProxy("http://localhost", transport=_Transport(self.directory / "sock")).supervisor
        self.until(lambda: self._server.getState()["statename"] == "RUNNING")

    def _name(self, number: int) -> str:
        return f"{'s' if number < self._static else 'd'}:w{number}"

    def launch(self, number: int) -> Call:
        return timed(lambda: self._server.startProcess(self._name(number), False))

    def launch_all(self, numbers: range) -> None:
        self._server.startProcessGroup("d", False)

    def stop(self) -> None:
        self.signal()

    def status_one(self, number: int) -> Call:
        return timed(lambda: self._server.getProcessInfo(self._name(number)))

    def status_all(self) -> Call:
        return timed(self._server.getAllProcessInfo)

    def command(self) -> list[str]:
        return [str(peers_python().parent / "supervisorctl"), "-c", str(self.directory / "supervisord.conf"), "status"]


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(str(self._path))


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._open: _Connection | None = None

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        # Kept between calls, as its own client keeps it.
        if self._open is None:
            self._open = _Connection(self._path)
        return self._open

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
