"""Run the soak and print its verdict: ``python -m tests.soak --minutes 30 --seed 1 [--json FILE]``.

Faults come one after another, some of them on top of each other; every few faults the host is
given time to settle and is compared with what must be true. The exit code is 0 without a
violation and 1 with one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import sys
import time
from collections import Counter
from typing import Any

from bgworker.testing import processes_below
from tests.soak.faults import choose
from tests.soak.observe import Probe, Sample, sample, slope_per_hour
from tests.soak.world import World

#: How long what is left of a killed host may take to disappear.
_END_DEADLINE = 1.0


def main() -> int:
    """Run the soak."""
    parser = argparse.ArgumentParser(prog="soak", description="Random faults against a running host.")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=None, help="the same seed gives the same faults")
    parser.add_argument("--json", metavar="FILE", help="write the verdict there too")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(2**31)
    verdict = soak(options.minutes * 60, seed)
    for key, value in verdict.items():
        print(f"{key + ':':32}{len(value) if key == 'violations' else value}")  # noqa: T201
    for violation in verdict["violations"]:
        print(f"VIOLATION:  {violation}")  # noqa: T201
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(verdict, file, indent=1)
    return 1 if verdict["violations"] else 0


def soak(seconds: float, seed: int) -> dict[str, Any]:
    """Soak a host for so long, and return the verdict."""
    rng = random.Random(seed)
    world = World()
    probe = Probe(world.host)
    counts: Counter[str] = Counter()
    samples: list[Sample] = []
    checked = 0
    began = time.monotonic()
    try:
        world.host.start_and_wait("run")
        checked += world.settle()
        probe.start()
        while time.monotonic() - began < seconds and not world.violations:
            done: list[str] = []
            for _ in range(rng.randint(1, 8)):
                fault = choose(rng)
                counts[fault.__name__] += 1
                done.append(fault(world, rng))
                world.turn()
            before = len(world.violations)
            checked += world.settle()
            # At rest: what queues hold in the middle of a storm is no leak.
            if (taken := sample(world.pid)) is not None:
                samples.append(taken)
            if len(world.violations) > before:
                world.violations.append(f"the faults before that: {'; '.join(done)}")
                world.violations.append(f"the host then: {world.host.report()}")
        probe.stop()
        checked += _check_the_end(world)
    except BaseException as error:
        world.violations.append(f"the soak itself ended: {type(error).__name__}: {error}")
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
    finally:
        probe.stop()
        world.close()
    return _verdict(seed, time.monotonic() - began, world, probe, samples, counts, checked)


def _check_the_end(world: World) -> int:
    """Kill the host, and see that nothing outlives it; start another, and see that it works."""
    for signum in (signal.SIGKILL, signal.SIGTERM):
        assert world.host.process is not None
        os.kill(world.pid, signum)
        world.host.process.wait(60)
        deadline = time.monotonic() + _END_DEADLINE
        while (left := processes_below(str(world.directory))) and time.monotonic() < deadline:
            time.sleep(0.01)
        if left:
            world.violations.append(f"left of the host {_END_DEADLINE:g} s after {signal.Signals(signum).name}: {left}")
        if signum == signal.SIGTERM:
            if world.host.process.returncode != 0:
                world.violations.append(f"the host's exit code after SIGTERM is {world.host.process.returncode}")
        else:
            world.new_host()
            world.host.start_and_wait("run")
            world.settle()
    return 4


def _verdict(
    seed: int, seconds: float, world: World, probe: Probe, samples: list[Sample], counts: Counter[str], checked: int
) -> dict[str, Any]:
    latencies = sorted(probe.latencies) or [0.0]
    return {
        "seed": seed,
        "minutes": round(seconds / 60, 1),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}",
        "faults": counts.total(),
        "faults by kind": dict(sorted(counts.items())),
        "sentences checked": checked,
        "violations": world.violations + probe.failures,
        "lines lost with a reason": world.lost_lines,
        "host memory KiB": [s.private_kib for s in samples[:: max(1, len(samples) // 12)]],
        "host memory slope KiB/h": slope_per_hour(samples),
        "host descriptors min/max": [min(s.descriptors for s in samples), max(s.descriptors for s in samples)] if samples else [],
        "host threads max": max((s.threads for s in samples), default=0),
        "status ms p50/p99/max": [round(1000 * latencies[int(q * (len(latencies) - 1))], 1) for q in (0.5, 0.99, 1.0)],
        "status requests": len(probe.latencies),
    }


if __name__ == "__main__":
    sys.exit(main())
