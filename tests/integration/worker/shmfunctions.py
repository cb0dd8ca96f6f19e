"""Workers' functions for the tests of shared memory; imported by worker processes through their python_path."""

from __future__ import annotations

import asyncio
import os
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from functions import inheritable_fds, say

from bgworker import aio, worker
from bgworker.errors import HostError

NUMBER = struct.Struct("<Q")


def show(act: Callable[[], object]) -> None:
    """Say what comes of it."""
    try:
        say(act())
    except HostError as error:
        say(f"{type(error).__name__}: {error}")


def begin(segment: worker.Segment) -> None:
    say(f"initialise {bytes(segment.buffer[:4]).hex()}")
    segment.buffer[:4] = b"\1\2\3\4"


def attach(arg: Any) -> None:
    before = inheritable_fds()
    segment = worker.shared_memory("memory", 100, begin)
    say(f"{segment!r} {segment.name} {segment.size} {segment.generation} {len(segment.buffer)} {bytes(segment.buffer[:4]).hex()}")
    say(worker.shared_memory("memory") is segment)
    show(lambda: worker.shared_memory("memory", 101))
    show(lambda: worker.shared_memory("memory", "100"))  # type: ignore[arg-type]
    say(sorted(inheritable_fds() - before))
    segment.buffer[99] = 9


def attach_only(arg: Any) -> None:
    show(lambda: bytes(worker.shared_memory("memory").buffer[:4]).hex())


def initialise_and(arg: str) -> None:
    """Begin to initialise, and go no further."""

    def half(segment: worker.Segment) -> None:
        begin(segment)
        segment.buffer[50] = 5
        if arg == "raise":
            raise ValueError("no such thing")
        if arg == "exit":
            os._exit(1)
        time.sleep(3600)

    worker.shared_memory("memory", 100, half)


def attach_anew(arg: Any) -> None:
    say("comes")
    segment = worker.shared_memory("memory", 100, begin)
    say(f"found {segment.buffer[50]} {bytes(segment.buffer[:4]).hex()}")


def hold(arg: Any) -> None:
    worker.unblock_signals()
    segment = worker.shared_memory("memory", 100)
    with segment.lock("x"):
        say("inside")
        for _ in range(2 if arg == "leave" else 1_000_000):
            worker.wait_latch()
            worker.reset_latch()
        say("leaves")
        if arg == "leave":
            os._exit(1)
    say("not reached after SIGTERM")


def want(timeout: float | None) -> None:
    worker.unblock_signals()
    segment = worker.shared_memory("memory", 100)

    def take() -> str:
        with segment.lock("x", timeout):
            return "got it"

    say("wants")
    show(take)
    show(take)


def hold_and_write(arg: Any) -> None:
    """Stay inside of the block through a SIGTERM, and finish what is being written."""
    worker.unblock_signals()
    segment = worker.shared_memory("memory", 100)
    with segment.lock("x"):
        say("inside")
        while not segment.buffer[0]:
            time.sleep(0.01)
        segment.buffer[1] = 1
    say("not reached after SIGTERM")


def cross(names: list[str]) -> None:
    """Take two locks in the order given; wait in between until the other worker has its first one, too."""
    worker.unblock_signals()
    segment = worker.shared_memory("memory", 100)

    def both() -> str:
        with segment.lock(names[0]):
            say("first")
            worker.wait_latch()
            with segment.lock(names[1]):
                return "both"

    show(both)


def misuse(arg: Any) -> None:
    segment = worker.shared_memory("memory", 100)

    def inside() -> None:
        with segment.lock("x"):
            pass

    with segment.lock("x"), segment.lock("y"), segment.lock():
        show(inside)
        thread = threading.Thread(target=show, args=(inside,))
        thread.start()
        thread.join()
        if os.fork() == 0:
            show(inside)
            show(lambda: worker.shared_memory("memory"))
            os._exit(0)
        os.wait()
        subprocess.run(["true"], check=True)
        say("still inside")
        worker.wait_latch()


def count(times: int) -> None:
    segment = worker.shared_memory("memory", 100)
    for _ in range(times):
        with segment.lock("count"):
            (number,) = NUMBER.unpack_from(segment.buffer)
            NUMBER.pack_into(segment.buffer, 0, number + 1)
    say("done")


def blocking_in_loop(arg: Any) -> Any:
    async def main() -> None:
        show(lambda: worker.shared_memory("memory", 100))
        segment = await aio.shared_memory("memory", 100, begin)
        show(lambda: segment.lock("x").__enter__())

    return main()


async def count_in_tasks(arg: list[int]) -> None:
    tasks, times = arg
    segments = await asyncio.gather(*(aio.shared_memory("memory", 100) for _ in range(3)))
    assert segments[0] is segments[2]

    async def one() -> None:
        for _ in range(times):
            async with segments[0].lock("count"):
                (number,) = NUMBER.unpack_from(segments[0].buffer)
                await asyncio.sleep(0)
                NUMBER.pack_into(segments[0].buffer, 0, number + 1)

    await asyncio.gather(*(one() for _ in range(tasks)))
    say("done")


async def want_in_loop(timeout: float | None) -> None:
    segment = await aio.shared_memory("memory", 100)
    say("wants")
    try:
        async with segment.lock("x", timeout):
            say("got it")
    except HostError as error:
        say(f"{type(error).__name__}: {error}")
