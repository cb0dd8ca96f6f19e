"""circus, driven over its ZeroMQ endpoint by an agent in the peers' environment."""

from __future__ import annotations

from typing import Final

from benchmarks.environment import peers_python, why_not
from benchmarks.peers.way import Agent, Call, Way, peers_agent

_CONFIGURATION: Final = """
[circus]
check_delay = 1
endpoint = ipc://{directory}/control
pubsub_endpoint = ipc://{directory}/events
statsd = false
"""
_WATCHER: Final = """
[watcher:w{number}]
cmd = {command}
numprocesses = 1
warmup_delay = 0
copy_env = true
stdout_stream.class = FileStream
stdout_stream.filename = {directory}/w{number}.log
"""


class Circus(Way):
    """Watchers of one process each; a worker on request is a watcher that is added."""

    name = "circus"
    tells = frozenset({"one", "all"})

    @classmethod
    def missing(cls) -> str:
        return why_not("circusd")

    def prepare(self, static: int, dynamic: int) -> None:
        text = _CONFIGURATION.format(directory=self.directory)
        for number in range(static):
            text += _WATCHER.format(number=number, command=self._command(number), directory=self.directory)
        (self.directory / "circus.ini").write_text(text)

    def _command(self, number: int | str) -> str:
        return " ".join(self.worker_command(number))

    def spawn(self) -> None:
        self.run([str(peers_python()), "-m", "circus.circusd", str(self.directory / "circus.ini")])

    def await_ready(self) -> None:
        self.until((self.directory / "control").exists)
        self.agent: Agent = peers_agent("circus_agent.py", f"ipc://{self.directory}/control")
        self.agent.call(command="globaloptions")

    def launch(self, number: int) -> Call:
        self._many = False
        return self._add(f"w{number}", self._command(number))

    def launch_all(self, numbers: range) -> None:
        # One watcher of many processes: its users have no faster way, and its status is of the watcher.
        self._many = True
        self._add("many", f"{self._command('$(circus.wid)')} {numbers[0] - 1}", numprocesses=len(numbers))

    def _add(self, name: str, command: str, **options: int) -> Call:
        stream = {"class": "FileStream", "filename": f"{self.directory}/{name}.log"}
        options = {"warmup_delay": 0, "max_retry": -1, **options}
        return self.agent.call(
            command="add", name=name, cmd=command, start=True, options={**options, "copy_env": True, "stdout_stream": stream}
        )

    def stop(self) -> None:
        self.signal()

    def close(self) -> None:
        if hasattr(self, "agent"):
            self.agent.close()
        super().close()

    def status_one(self, number: int) -> Call:
        return self.agent.call(command="status", name="many" if self._many else f"w{number}")

    def status_all(self) -> Call:
        return self.agent.call(command="status")

    def command(self) -> list[str]:
        return [str(peers_python().parent / "circusctl"), "--endpoint", f"ipc://{self.directory}/control", "status"]
