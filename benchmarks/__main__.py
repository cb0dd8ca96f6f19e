"""The runner: ``python -m benchmarks [QUESTION ...] [--quick] [--ways A,B] [--json FILE]`` and ``python -m benchmarks report``.

Without questions it asks all of them, writes benchmarks/results/latest.json and prints the
tables; ``report`` writes the tables and plots of benchmarks/results/published.json into docs/.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from benchmarks import environment
from benchmarks.figures import to_json
from benchmarks.growth import DESCRIPTORS
from benchmarks.harness import machine_facts
from benchmarks.processes import End, adopt_orphans, below
from benchmarks.report import text_tables, write_document
from benchmarks.run import Run

#: The dear ones last: on a machine that is slow they are what is left out. Growth after all others: it takes gigabytes, and on a
#: virtual machine what comes next waits for them to be given back.
QUESTIONS: Final = (
    "launching", "restart", "idle", "memory", "status", "control", "logs", "notify", "spares", "boot", "many", "growth",
)  # fmt: skip
#: What says most in some seconds.
QUICK: Final = ("launching", "restart", "control", "notify")
#: Seconds after which no further question is asked.
LONGEST: Final = 540.0
RESULTS: Final = Path(__file__).parent / "results"


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure bgworker beside its peers.")
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=f"{', '.join(QUESTIONS)}; or report")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, no peers")
    parser.add_argument("--ways", default="", help="only these, separated by commas")
    parser.add_argument("--json", type=Path, default=None, help="where the figures are written")
    arguments = parser.parse_args()
    if arguments.questions == ["report"]:
        return write_document(arguments.json or RESULTS / "published.json")
    if unknown := set(arguments.questions) - set(QUESTIONS):
        parser.error(f"no such question: {', '.join(sorted(unknown))}")
    questions = arguments.questions or (QUICK if arguments.quick else QUESTIONS)
    # An interrupted run ends its processes like any other.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _raise_limits()
    adopt_orphans()
    environment.compile_sources()
    if not arguments.quick and (problem := environment.install()):
        print(f"the peers' environment could not be made: {problem}", file=sys.stderr)  # noqa: T201
    results = _measure(Run(quick=arguments.quick, names=[name for name in arguments.ways.split(",") if name]), questions)
    print(text_tables(results))  # noqa: T201 - the command's output
    path = arguments.json or (None if arguments.quick else RESULTS / "latest.json")
    if path is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(results, indent=1) + "\n")
    return 0 if results["questions"] else 1


def _measure(run: Run, questions: tuple[str, ...] | list[str]) -> dict[str, Any]:
    results: dict[str, Any] = {"machine": machine_facts(), "questions": {}}
    began = time.monotonic()
    try:
        for name in questions:
            run.ask(name)
            if time.monotonic() - began > LONGEST:
                run.skip("the question", f"the run has taken {LONGEST:.0f} s already")
                continue
            with run.guarded("the question"):
                module = importlib.import_module(f"benchmarks.{name}")
                figures = module.measure(run)
                results["questions"][name] = {"title": module.TITLE, "figures": to_json(figures)}
            run.say(f"  {run.seconds:.0f} s")
            _end_stragglers(run)
    except (KeyboardInterrupt, SystemExit):
        # What was measured before is kept.
        run.skip("the question", "the run was interrupted, and so were the questions after this one")
    finally:
        _end_stragglers(run)
        run.close()
    results["seconds"] = round(time.monotonic() - began)
    results["skipped"] = run.skipped
    return results


def _end_stragglers(run: Run) -> None:
    """End what a question has left behind; there should be nothing, so it is named."""
    end = End(pid for pid in below(os.getpid()) if pid != os.getpid())
    if not end.wait(1.0):
        run.skip("left behind", "; ".join(end.kill()))
    end.close()


def _raise_limits() -> None:
    """Ask for all the descriptors that there may be: growth needs them, and what is started inherits them."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, DESCRIPTORS), max(hard, DESCRIPTORS)))
    except (OSError, ValueError):  # only root may have more than the hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
