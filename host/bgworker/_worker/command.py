"""``bgworker:command_main``: a blank worker that becomes a program which is not ours, by execve(2).

The program gets what it would find under any supervisor: an empty signal mask, default
dispositions, /dev/null as standard input, our pipes as output and error, a session of its
own, and no other descriptor. With the channel, which closes when the program is executed,
the host learns that it was: "executing" and the end of the channel are its "started". What
binds it to the host is the death signal, and what binds its descendants to it is the mark.

Imported in the loader, before a user is changed to who may not be able to read our files.
"""

from __future__ import annotations

import errno
import os
import signal
from typing import NoReturn

from bgworker._control.protocol import Message
from bgworker._process import descriptors, programs
from bgworker._text import printable
from bgworker._worker.channel import Channel
from bgworker._worker.log import write
from bgworker.errors import HostError


def execute(command: tuple[str, ...], channel: Channel, notify_socket: str | None = None) -> NoReturn:
    """Become the program, or tell host and log why not, and leave with code 1 (C10).

    Args:
        command: The program and its arguments.
        channel: To the host.
        notify_socket: Where it is to say that it is ready; empty where it cannot, None for one that does not.
    """
    try:
        if notify_socket is not None:
            _offer(notify_socket)
        file = programs.find(command[0], os.environ.get("PATH", os.defpath))
        descriptors.close_at_exec()
        # Said before it is true: afterwards there is nobody here to say it. A start that fails is told in its place.
        channel.send({"type": "executing"})
        _be_an_ordinary_process()
        _execute(file, command)
    except HostError as error:
        _fail(channel, error)


def _offer(notify_socket: str) -> None:
    if not notify_socket:
        raise HostError(
            'there is no NOTIFY_SOCKET for a program with ready = "notify"',
            "The path of the data directory is too long for a socket's name, or this system does not tell who sends.",
            "Use a data directory with a shorter path, or leave ready out.",
        )
    os.environ["NOTIFY_SOCKET"] = notify_socket


def _be_an_ordinary_process() -> None:
    """Give back what Python and we have changed of signals; from here on they act."""
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(signum) is not signal.SIG_DFL:
            signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _execute(file: str, command: tuple[str, ...]) -> NoReturn:
    try:
        os.execv(file, command)
    except OSError as error:
        hint = ""
        if error.errno == errno.ENOEXEC:
            hint = "A script needs a first line that names its interpreter, such as #!/bin/sh."
        elif error.errno == errno.ENOENT:
            hint = "The file is there: what is missing is the interpreter that its first line names, or its loader."
        raise HostError(f'could not execute "{printable(file)}": {error.strerror}', message_hint=hint) from None


def _fail(channel: Channel, error: HostError) -> NoReturn:
    write("".join(f"{line}\n" for line in error.lines()).replace("ERROR:", "FATAL:", 1))
    failure: Message = {"type": "start_failed", "error": error.to_dict(), "traceback": ""}
    channel.send(failure)
    os._exit(1)
