"""A spare: a blank worker that was born ahead and waits until it is told what it is to be.

It rehearses first. A clone shares its memory with the loader until it writes, and Python
writes to whatever it looks at (reference counts): the way from the assignment to the worker's
function touches some three hundred pages, each of which the kernel copies at the first touch.
That is most of the time that a birth takes, and a spare has time: it goes the whole way
once, on descriptors of its own, as nobody, and undoes what it did.

Nothing of a worker's has happened in it yet, so it does not block signals while it waits:
whatever would end an ordinary process ends it, and the host makes another. They are blocked
again before the assignment is read. A spare that a signal ends has therefore not read it,
which the kernel tells the host (a reset connection), and the registration goes to another
process.
"""

from __future__ import annotations

import copy
import select
import signal
import socket
from typing import TYPE_CHECKING, Any, Final

from bgworker._control.protocol import encode
from bgworker._process import injection, own_signals
from bgworker._shm.layout import pack_activity
from bgworker._spec import BackgroundWorker
from bgworker._worker import inherited, library, log_records, runtime
from bgworker._worker.assignment import extend_path, make_runtime, read_assignment, take_name
from bgworker._worker.channel import Channel
from bgworker._worker.interrupts import BLOCKED, Interrupts
from bgworker._worker.latch import Latch
from bgworker._worker.slot_view import SlotView

if TYPE_CHECKING:
    from bgworker._plugins.manager import PluginHost

#: As ps shows it.
NAME: Final = "spare"


def nobody(argument: Any) -> None:
    """The function of the rehearsal."""


def rehearse(lifeline_fd: int, plugins: PluginHost | None) -> None:
    """Go the way of an assignment once, so that the memory on it is this process's own. Signals are blocked.

    Args:
        lifeline_fd: Waited on, as it will be.
        plugins: The loader's.
    """
    worker = BackgroundWorker(bgw_name=NAME, bgw_library_name=__name__, bgw_function_name=nobody.__name__, bgw_main_arg={"": [""]})
    sample = {"type": "assign", "slot": 0, "generation": 0, "worker": worker.to_wire(), "settings": {"": {"": 0}}}
    ours, theirs = socket.socketpair()
    latch = Latch()
    interrupts = Interrupts(latch)
    channel = Channel(theirs.detach(), lifeline_fd, latch, interrupts, SlotView(-1))
    ours.sendall(encode(sample))
    message = channel.await_assignment()
    assert message is not None, "it was sent on the line before"
    this = make_runtime(read_assignment(message), latch, interrupts, channel, plugins=plugins)
    take_name(NAME)
    extend_path(())
    runtime.install(this)
    this.activity.start()
    pack_activity(this.activity.shown)
    function = library.resolve(worker.bgw_library_name, worker.bgw_function_name, plugins)
    log_records.install()
    inherited.stop_alarm()
    interrupts.block()
    interrupts.install()
    latch.arm()
    channel.send({"type": "started", "code": library.code_of(__name__, plugins)})
    # Not further: what follows a worker's function (threads are joined, executors shut) can be done once only.
    function(copy.deepcopy(worker.bgw_main_arg))
    runtime.install(None)
    interrupts.uninstall()
    signal.set_wakeup_fd(-1)
    latch.close()
    channel.close()
    ours.close()


def stand_by(channel_fd: int, lifeline_fd: int) -> None:
    """Wait until the host says something, or dies. Every signal is blocked on return, as it was on entry."""
    poller = select.poll()
    poller.register(channel_fd, select.POLLIN)
    poller.register(lifeline_fd, select.POLLIN)
    own_signals.set_mask(())
    poller.poll()
    injection.point("worker.spare")
    own_signals.set_mask(BLOCKED)
