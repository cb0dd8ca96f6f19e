"""Runs an ``async def`` worker: an event loop, signals unblocked, SIGTERM as cancellation of the main task.

Not asyncio.run(): its end waits for the threads of the default executor, and a worker that
was told to end must not wait for a thread that nobody stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from bgworker._worker.async_part import AsyncPart
from bgworker._worker.interrupts import Terminated

if TYPE_CHECKING:
    from bgworker._worker.runtime import Runtime


def run_async(runtime: Runtime, coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run the worker's coroutine to its end; what it raises is raised here."""
    runtime.interrupts.is_async = True
    loop = asyncio.new_event_loop()
    part = runtime.async_part = AsyncPart(runtime, loop)
    try:
        asyncio.set_event_loop(loop)
        if runtime.has_unclaimed_connection:
            from bgworker._worker import singleton

            loop.run_until_complete(singleton.become_async(runtime))
        part.start()
        task = part.main_task = loop.create_task(coroutine, name=runtime.worker.bgw_name)
        # Unblocked only now: a SIGTERM that was pending cancels the task before its first step, and never runs half of it.
        runtime.interrupts.unblock()
        try:
            loop.run_until_complete(task)
        except (asyncio.CancelledError, BaseExceptionGroup) as error:
            if runtime.interrupts.ending is not None and _is_ending_only(error):
                raise Terminated(runtime.interrupts.ending) from None
            raise
    finally:
        _wind_up(runtime, part, loop)


def _is_ending_only(error: BaseException) -> bool:
    """Whether nothing but the ending itself left the function; a task group wraps it."""
    if isinstance(error, BaseExceptionGroup):
        return error.split((asyncio.CancelledError, Terminated))[1] is None
    return True


def _wind_up(runtime: Runtime, part: AsyncPart, loop: asyncio.AbstractEventLoop) -> None:
    """End what the function left behind, as asyncio.run() does."""
    try:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        for task in tasks:
            if not task.cancelled() and task.exception() is not None:
                loop.call_exception_handler(
                    {"message": "unhandled exception while the worker ended", "exception": task.exception(), "task": task}
                )
        loop.run_until_complete(loop.shutdown_asyncgens())
        if runtime.interrupts.ending is None:
            loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        part.stop()
        asyncio.set_event_loop(None)
        loop.close()
