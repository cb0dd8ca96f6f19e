"""The collector's side of the host: the process kept running, and whose output it is to read.

The host holds the read end of every pipe until the collector has read it to its end, so
that a new collector takes over from a dead one without a loss.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bgworker._baggage import Baggage
from bgworker._config.model import HostSettings
from bgworker._control.protocol import Message
from bgworker._core.codec import write
from bgworker._core.exits import decode, ended_text
from bgworker._host.births import WorkerProcess
from bgworker._host.helper_process import HelperProcess
from bgworker._host.loaders import describe_status
from bgworker._host.records import Records
from bgworker._loop import Loop
from bgworker._spec import BackgroundWorker, worker_from_dict


@dataclass(eq=False)
class _Attached:
    """The output of one process; kept until the collector has read it to its end."""

    process: WorkerProcess
    worker: BackgroundWorker
    is_static: bool
    #: How the process ended, once it has; empty if that is written already, or not to be.
    end: str | None = None

    def carry(self) -> dict[str, Any]:
        """Return it as JSON values; the process is said elsewhere."""
        return {"worker": write(self.worker), "is_static": self.is_static, "end": self.end}


class Output:
    """Runs the collector and tells it what there is to read and to write.

    Args:
        loop: The host's loop.
        fds: Lifeline and lock.
        data_directory: Where the collector writes.
        log_to: "files", "stderr" or "both".
        settings: Say how log files look and when they make room.
        pipes: Of the loader, from ``carry`` of this host before it executed itself anew; None makes them.
    """

    def __init__(
        self,
        loop: Loop,
        fds: tuple[int, int],
        data_directory: str,
        log_to: str,
        settings: HostSettings,
        pipes: Sequence[int] | None = None,
    ) -> None:
        self._configuration: Message = {
            "type": "configure", "data_directory": data_directory, "log": log_to, "format": settings.log_format,
            "rotation_size": settings.log_rotation_size, "rotation_keep": settings.log_rotation_keep,
        }  # fmt: skip
        self._attached: dict[str, _Attached] = {}
        # What plugins print while they are imported; read like a worker's output.
        self._loader_pipes = tuple(pipes) if pipes is not None else (*os.pipe(), *os.pipe())
        #: What a collector that has handed over had read of each life, and not written.
        self._rests: dict[str, Message] = {}
        #: What it had lost and could not say.
        self._lost: list[dict[str, Any]] = []
        self.collector = HelperProcess(
            loop,
            "collector",
            "bgworker._collector",
            fds,
            self._configure,
            self._says,
            self._exited,
            on_nonsense=lambda problem: self.records.log(
                "WARNING", "the collector process sent nonsense and is replaced", f"It sent {problem}."
            ),
        )
        self.records = Records(self.collector.send_later)

    @property
    def loader_fds(self) -> tuple[int, int]:
        """Standard output and error of the loader."""
        return self._loader_pipes[1], self._loader_pipes[3]

    def attach(self, process: WorkerProcess, worker: BackgroundWorker, *, is_static: bool) -> None:
        """Have the output of a new process read."""
        # Not the life itself: one that lost its process before it began has a second one.
        life = str(process.birth)
        self._attached[life] = _Attached(process, worker, is_static)
        self._send_attach(life)

    def ended(self, process: WorkerProcess, status: int) -> None:
        """Have the output of a process read to its end, and its end written below; the exit does not wait for that."""
        life = str(process.birth)
        attached = self._attached.get(life)
        if attached is not None:
            # What never was a worker leaves no line in its log.
            is_nobody = process.is_unassigned
            attached.end = "" if is_nobody else ended_text(attached.worker.bgw_name, process.pid, *decode(status))
            self._send_end(life)

    def hand_over(self) -> None:
        """Have the collector say what it has not written, and end; the next one goes on in the middle of a line."""
        self.collector.send({"type": "hand_over"})
        self.collector.hold(True)

    def carry(self, baggage: Baggage) -> dict[str, Any]:
        """Return what is attached and what the collector has left; there is none any more."""
        return {
            "pipes": [baggage.pack(fd) for fd in self._loader_pipes],
            "attached": [[life, attached.carry()] for life, attached in self._attached.items()],
            "rests": self._rests,
            "lost": self._lost,
            "records": self.records.carry(),
        }

    def processes(self) -> list[WorkerProcess]:
        """Return those whose output has not been read to its end; some have been reaped."""
        return [attached.process for attached in self._attached.values()]

    def resume(self, carried: Mapping[str, Any], processes: Mapping[str, WorkerProcess]) -> None:
        """Take back what ``carry`` has told of.

        Args:
            carried: That.
            processes: By the number of their birth.
        """
        for life, each in carried["attached"]:
            worker = worker_from_dict(each["worker"])
            self._attached[life] = _Attached(processes[life], worker, bool(each["is_static"]), each["end"])
        self._rests = dict(carried["rests"])
        self._lost = list(carried["lost"])
        self.records.resume(carried["records"])

    def close(self) -> None:
        """Give back the loader's pipes."""
        for fd in self._loader_pipes:
            os.close(fd)

    def _configure(self) -> None:
        lost, self._lost = self._lost, []
        self.collector.send({**self._configuration, "lost": lost})
        self.collector.send(
            {
                "type": "attach", "life": "loader", "bgw_name": "loader", "bgw_type": "loader",
                "slot": -1, "generation": 0, "pid": 0, "is_static": True, "rest": self._rests.pop("loader", None),
            },
            (self._loader_pipes[0], self._loader_pipes[2]),
        )  # fmt: skip
        for life in self._attached:
            self._send_attach(life)
        self.records.flush()
        # Again, even if the collector before this one may have written it: better twice than never.
        for life in self._attached:
            self._send_end(life)

    def _send_attach(self, life: str) -> None:
        attached = self._attached[life]
        process, worker = attached.process, attached.worker
        self.collector.send_later(
            {
                "type": "attach", "life": life, "bgw_name": worker.bgw_name, "bgw_type": worker.bgw_type,
                "slot": process.life.slotno, "generation": process.life.generation, "pid": process.pid,
                "is_static": attached.is_static, "rest": self._rests.pop(life, None),
            },
            process.log_fds,
        )  # fmt: skip

    def _send_end(self, life: str) -> None:
        if (end := self._attached[life].end) is not None:
            self.collector.send_later({"type": "exited", "life": life, "message": end})

    def _says(self, message: Message) -> None:
        if message["type"] == "eof":
            attached = self._attached.pop(message["life"], None)
            if attached is not None:
                attached.process.close_log_fds()
        elif message["type"] == "rest":
            self._rests[message["life"]] = message
            attached = self._attached.get(message["life"])
            if attached is not None and message["is_exited"]:
                attached.end = ""  # it is written, and only the pipes are not at their end

        elif message["type"] == "lost":
            self._lost = message["lines"]

    def _exited(self, status: int | None) -> None:
        if self.collector.is_wanted and not self.collector.is_parting and status is not None:
            self.records.log(
                "WARNING",
                f"collector process ended ({describe_status(status)}); starting another",
                "What workers print waits in their pipes.",
            )
