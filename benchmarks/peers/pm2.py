"""pm2, driven over its own Node interface by an agent; npm's package, where it is installed globally."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.peers.way import Agent, Call, Way
from benchmarks.processes import End, below


class Pm2(Way):
    """A daemon below a home of its own. Its agent executes the daemon, which makes itself a daemon."""

    name = "pm2"
    tells = frozenset({"one", "all"})
    has_static = False
    slow_to_stop = True

    @classmethod
    def missing(cls) -> str:
        if not shutil.which("node") or not shutil.which("pm2"):
            return "pm2 is not installed"
        return ""

    def prepare(self, static: int, dynamic: int) -> None:
        self._environment = {**os.environ, "PM2_HOME": str(self.directory / "pm2"), "NODE_PATH": str(_modules())}
        self._environment["PM2_DISABLE_VERSION_CHECK"] = "true"

    def spawn(self) -> None:
        script = str(Path(__file__).parent / "pm2_agent.js")
        self.agent = Agent(["node", script, str(self.directory)], env=self._environment)

    def await_ready(self) -> None:
        self.agent.call(do="ready")
        self._pid = int((self.directory / "pm2" / "pm2.pid").read_text())

    def own(self) -> list[int]:
        return self.without_workers([self._pid])

    def launch(self, number: int) -> Call:
        return self.agent.call(do="start", name=f"w{number}", command=self.worker_command(number))

    def launch_all(self, numbers: range) -> None:
        self.agent.call(do="start_all", workers=[[f"w{number}", self.worker_command(number)] for number in numbers])

    def stop(self) -> None:
        # The agent's connection to the daemon carries the order; the answer comes when the last worker has gone.
        self.agent.tell(do="kill")

    def close(self) -> None:
        self._daemon = None
        if not hasattr(self, "agent"):
            return
        if hasattr(self, "_pid"):
            self.close_tree([self._pid])
        self.agent.close()
        # On a busy machine its client gives a daemon up that is slow to answer, and executes a second one.
        end = End(self._daemons())
        end.kill()
        end.close()

    def _daemons(self) -> list[int]:
        """Return the processes that were executed with our home; they are ours, because the runner adopts orphans."""
        home = f"PM2_HOME={self._environment['PM2_HOME']}".encode()
        found = []
        for pid in below(os.getpid()):
            try:
                if pid != os.getpid() and home in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    found.append(pid)
            except OSError:
                pass  # it has gone
        return found

    def status_one(self, number: int) -> Call:
        return self.agent.call(do="describe", name=f"w{number}")

    def status_all(self) -> Call:
        return self.agent.call(do="list")

    def command(self) -> list[str]:
        return ["env", f"PM2_HOME={self._environment['PM2_HOME']}", "pm2", "jlist"]


def _modules() -> Path:
    return Path(subprocess.run(["npm", "root", "-g"], capture_output=True, text=True, check=True, timeout=60).stdout.strip())
