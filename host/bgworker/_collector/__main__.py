"""``python -m bgworker._collector``: the collector as a program; only the host starts it."""

from __future__ import annotations

import os
import resource
import select
import signal

from bgworker._collector.loop import Collector
from bgworker._process.helper import HelperChannel, setup
from bgworker._process.prctl import set_pdeathsig


def main() -> None:
    """Set up, wait for the configuration, and collect until the host says stop or dies."""
    _fill_standard_descriptors()
    channel = setup("collector")
    # Unlike other helpers we outlive the host by a moment, bounded in the loop: its last words
    # and those of the workers that die with it are still in our channel and pipes. The lifeline
    # tells us; the signal sees to it that somebody who stopped us cannot keep us from hearing it.
    set_pdeathsig(signal.SIGCONT)
    # Two pipes per worker and a file per name: the usual soft limit of 1024 is for 300 workers.
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if (collector := _configured(channel)) is not None:
        collector.run()


def _fill_standard_descriptors() -> None:
    """Open 0, 1 and 2 if the host runs without them: a worker's pipe must not be taken for our stderr."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def _configured(channel: HelperChannel) -> Collector | None:
    """Return the collector once the host has said what it should be; None if the host is gone first."""
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    poll.register(channel.lifeline_fd, select.POLLIN)
    while True:
        ready = [fd for fd, _ in poll.poll()]
        if channel.fileno() not in ready:
            return None
        try:
            received = channel.receive()
        except EOFError:
            return None
        if received:
            # The first message is the configuration, by contract; without one there is nowhere to say that it is missing.
            collector = Collector(channel, received[0][0])
            for message, fds in received[1:]:
                collector.handle(message, fds)
            return collector


if __name__ == "__main__":
    main()
