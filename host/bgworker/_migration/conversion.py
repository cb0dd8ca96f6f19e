"""What a conversion has found: workers to be, and what could not be taken over, line by line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bgworker._spec import BgWorkerStartTime
from bgworker._toml_text import table_text

#: What each program gets. Other supervisors know no database: with ours a program would wait for it by default.
WITH_THE_HOST: Final = {"bgw_start_time": BgWorkerStartTime.BgWorkerStart_PostmasterStart.value}


@dataclass(frozen=True)
class Remark:
    """One thing that is not the same afterwards, for whoever reads the result."""

    #: The file and its line, counted from 1; 0 where no line says it.
    path: str
    line: int
    #: What the file names: ``[program:web] priority``.
    subject: str
    #: What becomes of it.
    text: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else self.path
        return f"{place}: {self.subject}: {self.text}"


@dataclass
class Conversion:
    """The result of reading one file and those that it includes."""

    #: Keys of each [[worker]], in the order in which they are written.
    workers: list[dict[str, Any]] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many workers run, instances counted."""
        return sum(int(worker.get("instances", 1)) for worker in self.workers)

    def text(self, source: str) -> str:
        """Return the workers.toml.

        Args:
            source: What it was made of, for its first line.
        """
        # Room to grow, and for workers that are registered while the host runs.
        slots = max(64, 2 * self.count)
        parts = [
            f"# Made from {source} by bgworker import. Look it over, then: bgworker check",
            table_text("[host]", {"max_worker_processes": slots}),
            *(table_text("[[worker]]", worker) for worker in self.workers),
        ]
        return "\n\n".join(parts) + "\n"


def named_once(workers: list[dict[str, Any]]) -> Mapping[str, int]:
    """Return the names that more than one worker has, with how many have it."""
    counts: dict[str, int] = {}
    for worker in workers:
        counts[worker["bgw_name"]] = counts.get(worker["bgw_name"], 0) + 1
    return {name: count for name, count in counts.items() if count > 1}
