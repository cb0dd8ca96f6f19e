"""Workers for the tests of history, why and logs: put beside workers.toml as a plain module named ``explained``."""

import logging
import os
import time

from bgworker import worker


def idle(_arg):
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass


def fails(arg):
    """Write some lines, then raise; the first life only, if it is told so."""
    for number in range(60):
        os.write(2, b"line %d\n" % number)
    try:
        {}["missing"]
    except KeyError as error:
        raise ConnectionError(f"connection refused by {arg}") from error


def leaves(arg):
    os._exit(arg)


def logs(arg):
    worker.unblock_signals()
    log = logging.getLogger("shop.queue")
    log.warning("queue is %d long", 7)
    log.info("not said: the level of the root logger is WARNING")
    try:
        sum([1 / number for number in (1, 0)])
    except ZeroDivisionError:
        log.exception("two\nlines")
    os.write(1, b"plain text\n")
    for _ in worker.latch_loop():
        pass


def talks(arg):
    """Write so many lines of 100 bytes, then idle."""
    worker.unblock_signals()
    for number in range(arg):
        os.write(1, b"%099d\n" % number)
        if number % 100 == 0:
            time.sleep(0.001)
    worker.report_activity("idle", "said all")
    for _ in worker.latch_loop():
        pass
