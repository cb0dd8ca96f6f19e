"""The loader's main function: configure, load, say what there is, then one birth per request until told to stop.

``--check CONFIG`` is the same loading in a throw-away process that prints what it found and
gives birth to nobody; ``bgworker check`` runs it.
"""

from __future__ import annotations

import gc
import os
import select
import sys
from collections import deque
from importlib import import_module
from typing import Final

from bgworker._config.load import ConfigurationErrors
from bgworker._control.protocol import Message, decode, encode
from bgworker._loader import immortal, nursery
from bgworker._loader.catalogue import Catalogue, build
from bgworker._loader.traces import Spoiled
from bgworker._process import birth, injection, prctl
from bgworker._process.helper import HelperChannel, setup
from bgworker.errors import ConfigurationError, ProtocolError

#: Births that are answered together. Each answer wakes the host, which takes the processor that the next clone needs.
_ANSWERED_TOGETHER: Final = 4


def main() -> int:
    """Run the loader, or the check."""
    if len(sys.argv) == 3 and sys.argv[1] == "--check":
        from bgworker._loader.check import check

        return check(sys.argv[2])
    channel = setup("loader")
    host_pid = os.getppid()
    nursery.block_signals()
    # Its clones inherit it, which saves each of them the opening of a file; a loader that is taken for it is replaced.
    prctl.raise_oom_score()
    message, fds = _first_message(channel)
    catalogue = _load(channel, message)
    if catalogue is None:
        # The host reads what was said, then closes the channel.
        _wait_for_the_end(channel)
        return 0
    devnull = os.open("/dev/null", os.O_RDWR)
    os.dup2(devnull, 0)
    os.close(devnull)
    secrets = tuple(catalogue.configuration.references)
    cradle = nursery.Cradle(host_pid, channel.lifeline_fd, fds[0], fds[1], (channel.fileno(),), secrets)
    return _serve(channel, cradle, catalogue)


def _first_message(channel: HelperChannel) -> tuple[Message, list[int]]:
    while True:
        if not _wait(channel):
            sys.exit(0)
        try:
            received = channel.receive()
        except EOFError:
            sys.exit(0)
        # A word that came with it can only be "stop", and a loader that is not ready is stopped by force.
        if received:
            return received[0]


def _wait(channel: HelperChannel) -> bool:
    """Wait for the host's next words; False when the host is dead."""
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    poll.register(channel.lifeline_fd, select.POLLIN)
    ready = dict(poll.poll())
    return channel.lifeline_fd not in ready


def _wait_for_the_end(channel: HelperChannel) -> None:
    try:
        while _wait(channel):
            channel.receive()
    except EOFError:
        pass


def _why_unsendable(message: Message) -> str:
    """Return what keeps the host from reading a message, or nothing; TOML can say more than JSON (nan), and nests deeper."""
    try:
        decode(encode(message).rstrip())
    except ProtocolError as error:
        return " ".join(filter(None, (error.message_primary, error.message_detail)))
    return ""


def _load(channel: HelperChannel, message: Message) -> Catalogue | None:
    channel.send({"type": "birth_way", "way": birth.probe()})
    try:
        catalogue = build(
            message["config_path"],
            message["config_text"],
            lambda name: channel.send({"type": "importing", "plugin": name}),
            message["excluded"],
            message["exec_only"],
            tell_fork=lambda name: channel.send({"type": "forked", "plugin": name}),
        )
    except ConfigurationError as error:
        errors = error.errors if isinstance(error, ConfigurationErrors) else [error]
        channel.send({"type": "configuration_error", "errors": [each.to_dict() for each in errors]})
        return None
    except Spoiled as finding:
        channel.send({"type": "spoiled", "plugin": finding.plugin, "how": finding.how})
        return None
    _preload_runtime(has_database=catalogue.configuration.database is not None)
    # Everything loaded so far stays for ever: taken out of the collector's sight, its pages stay shared with the clones.
    gc.collect()
    immortal.keep_code()
    gc.freeze()
    ready = {"type": "ready", **catalogue.to_message()}
    if problem := _why_unsendable(ready):
        unsendable = ConfigurationError(
            "the configuration holds a value that is no JSON value",
            f"{problem}.",
            "Look for nan, inf and deeply nested arrays in [settings] and in the bgw_main_arg of workers.",
        )
        channel.send({"type": "configuration_error", "errors": [unsendable.to_dict()]})
        return None
    channel.send(ready)
    return catalogue


def _preload_runtime(*, has_database: bool) -> None:
    """Import what every worker needs anyway, once and shared, instead of in each of them."""
    for name in (
        "bgworker._worker.main",
        "bgworker._worker.command",
        "bgworker.worker",
        "bgworker.spi",
        *(("psycopg", "bgworker._worker.database") if has_database else ()),
    ):
        try:
            import_module(name)
        except ImportError:
            pass  # no psycopg here: the worker that asks for it is told so
    if "logging" in sys.modules:
        from bgworker._worker import log_records

        log_records.handler_class()


def _serve(channel: HelperChannel, cradle: nursery.Cradle, catalogue: Catalogue) -> int:
    try:
        while _wait(channel):
            received = deque(channel.receive())
            while received:
                if bunch := _take_births(received):
                    # Requests come with their descriptors: a clone must not keep those of its siblings.
                    foreign = [*channel.pending_fds(), *(fd for _message, fds in received for fd in fds)]
                    channel.send_all(_give_births(cradle, catalogue, bunch, foreign))
                    continue
                message, _fds = received.popleft()
                if message["type"] == "stop":
                    return 0
    except EOFError:
        pass
    return 0


def _take_births(received: deque[tuple[Message, list[int]]]) -> list[tuple[Message, list[int]]]:
    """Take the requests for births that come next, as many as are answered together."""
    bunch: list[tuple[Message, list[int]]] = []
    while received and received[0][0]["type"] == "birth" and len(bunch) < _ANSWERED_TOGETHER:
        bunch.append(received.popleft())
    return bunch


def _give_births(
    cradle: nursery.Cradle, catalogue: Catalogue, requests: list[tuple[Message, list[int]]], foreign_fds: list[int]
) -> list[Message]:
    """Clone once for each request, and return the answers. In a clone it never returns."""
    # What is buffered here would be printed once by the loader and once by each clone.
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    answers: list[Message] = []
    for message, fds in requests:
        # As little as can be from clone to clone: after each of them the loader, too, copies the pages that it writes.
        try:
            injection.point("loader.birth")
            pid = birth.clone_parent()
        except (OSError, birth.TooManyThreads) as error:
            answers.append({"type": "birth_failed", "error": f"could not start a process: {error}", "birth": message["birth"]})
            continue
        if pid == 0:
            plugins = None if message["kind"] == "exec" else catalogue.plugins
            siblings = [*foreign_fds, *(fd for other, others in requests if other is not message for fd in others)]
            nursery.begin_life(cradle, fds, plugins, message["surroundings"], siblings, is_spare=message["kind"] == "spare")
        injection.point("loader.born")
        answers.append({"type": "born", "pid": pid, "birth": message["birth"]})
    for _message, fds in requests:
        for fd in fds:
            os.close(fd)
    return answers


if __name__ == "__main__":
    sys.exit(main())
