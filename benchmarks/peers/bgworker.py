"""bgworker itself, measured through its client as its users use it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar, Final

import bgworker
from benchmarks.beacon import Beacon
from benchmarks.harness import ROOT
from benchmarks.peers.way import Call, Way, timed
from bgworker.testing import RunningHost

_CONFIGURATION: Final = """
[host]
max_worker_processes = {slots}
shared_preload_libraries = ["worker_spi", "benchmarks.subject"]
python_path = ["{root}"]
{host}
{database}
[[worker]]
bgw_name = "worker_spi worker 1"
enabled = false
[[worker]]
bgw_name = "worker_spi worker 2"
enabled = false
"""
_WORKER: Final = """
[[worker]]
bgw_name = "w{number}"
bgw_type = "benchmark"
bgw_library_name = "benchmarks.subject"
bgw_function_name = "{function}"
bgw_start_time = "BgWorkerStart_PostmasterStart"
bgw_restart_time = 0
bgw_main_arg = ["{path}", {number}]
"""


class BgWorker(Way):
    """A host with both plugins and psycopg loaded, its logs captured."""

    name = "bgworker"
    tells = frozenset({"one", "all"})
    asks = 1000
    #: What a question adds to [host] and puts into [database], and which function its workers are.
    host: ClassVar[str] = ""
    database: ClassVar[str] = ""
    function: ClassVar[str] = "wait"
    flags: ClassVar[bgworker.BgWorkerFlags] = bgworker.BGWORKER_SHMEM_ACCESS

    def __init__(self, directory: Path, beacon: Beacon) -> None:
        super().__init__(directory, beacon)
        directory.chmod(0o711)  # an embedded PostgreSQL's own user must be able to pass
        self.running: RunningHost | None = None
        self.client: bgworker.Client | None = None
        self.handles: dict[int, Any] = {}

    def prepare(self, static: int, dynamic: int) -> None:
        text = _CONFIGURATION.format(slots=static + dynamic + 8, root=ROOT, host=self.host, database=self.database)
        for number in range(static):
            text += _WORKER.format(number=number, path=self.beacon.path, function=self.function)
        self.running = RunningHost(self.directory, text)

    def spawn(self) -> None:
        assert self.running is not None
        self.running.start()
        self._daemon = self.running.process

    def await_ready(self) -> None:
        assert self.running is not None
        self.running.wait_for_state("run")
        self.client = self.running.client()

    def launch(self, number: int) -> Call:
        assert self.client is not None
        client, worker = self.client, self.worker(number)

        def register() -> int | None:
            self.handles[number] = handle = client.register_dynamic_background_worker(worker)
            return handle.wait_for_startup().pid

        return timed(register)

    def worker(self, number: int) -> bgworker.BackgroundWorker:
        """Return the registration of one dynamic worker."""
        return bgworker.BackgroundWorker(
            bgw_name=f"w{number}",
            bgw_type="benchmark",
            bgw_flags=self.flags,
            bgw_restart_time=0,
            bgw_library_name="benchmarks.subject",
            bgw_function_name=self.function,
            bgw_main_arg=[str(self.beacon.path), number],
        )

    def launch_all(self, numbers: range) -> None:
        assert self.client is not None
        for number in numbers:
            self.handles[number] = self.client.register_dynamic_background_worker(self.worker(number))

    def stop(self) -> None:
        if self.client is not None:
            self.client.close()
            self.client = None
        self.signal()

    def status_one(self, number: int) -> Call:
        get_pid = self.handles[number].get_pid

        def ask() -> None:
            for _ in range(self.asks):
                get_pid()

        return timed(ask)

    def status_all(self) -> Call:
        assert self.client is not None
        return timed(self.client.slots)

    def command(self) -> list[str]:
        return [str(Path(sys.executable).parent / "bgworker"), "status", "--json", "-D", str(self.directory / "data")]


class BgWorkerConnected(BgWorker):
    """The same with an embedded PostgreSQL; its workers report with their connection open."""

    name = "bgworker"
    database = '[database]\nurl = "embedded"'
    function = "connected"
    flags = bgworker.DATABASE_WORKER_FLAGS
