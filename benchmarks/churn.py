"""Registers a hundred workers in a second until standard input ends, then prints how many it were: churn.py DATA_DIRECTORY."""

from __future__ import annotations

import select
import sys
import time

import bgworker

_RATE = 100


def main() -> None:
    """Keep the pace."""
    worker = bgworker.BackgroundWorker(
        bgw_name="comes and goes",
        bgw_library_name="benchmarks.subject",
        bgw_function_name="come_and_go",
    )
    with bgworker.connect(sys.argv[1]) as client:
        client.register_dynamic_background_worker(worker).wait_for_shutdown()
        print("ready", flush=True)  # noqa: T201 - how a program answers
        begin = time.monotonic()
        count = 0
        while not select.select([0], [], [], max(0.0, begin + count / _RATE - time.monotonic()))[0]:
            try:
                client.register_dynamic_background_worker(worker)
            except bgworker.NoFreeSlot:
                time.sleep(0.01)  # the machine does not keep the pace; the figure will say so
                continue
            count += 1
        print(count / (time.monotonic() - begin), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
