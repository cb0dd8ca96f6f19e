"""What a client can ask of a host: method, parameters, patience and the meaning of the answer, each said once.

Pure. The threaded and the asyncio client carry the same operations out, each in its way;
docs/protocol.md describes them for other languages.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from bgworker.errors import ProtocolError, WorkerNotFound

if TYPE_CHECKING:
    from bgworker._spec import BackgroundWorker

Result = TypeVar("Result")
Answer = dict[str, Any]
#: Slot and generation: all that a handle is.
HandleKey = tuple[int, int]

#: Seconds that the host may take for what it answers out of its own memory. It is one thread that
#: never blocks: more means that it is stopped, and waiting for ever would stop the caller too.
REPLY_TIMEOUT = 30.0
#: Seconds that a client waits beyond the deadline it told the host, so that the host's answer at
#: that very deadline, or to a timeout of 0, has the time to arrive.
GRACE = 1.0


class Operation(Generic[Result]):
    """One request that has not been made yet.

    Args:
        method: Name on the wire.
        params: Parameters on the wire.
        read: Makes the result of the answer.
        timeout: Seconds after which the client gives up; None waits as long as the host lives.
    """

    __slots__ = ("method", "params", "read", "timeout")

    def __init__(
        self, method: str, params: Answer, read: Callable[[Answer], Result], timeout: float | None = REPLY_TIMEOUT
    ) -> None:
        self.method = method
        self.params = params
        self.read = read
        self.timeout = timeout


def ping() -> Operation[None]:
    """See that the host's loop turns."""
    return Operation("ping", {}, lambda answer: None)


def status() -> Operation[Answer]:
    """Ask for all facts; activity is the client's to fill in."""
    return Operation("status", {}, _same)


def register(worker: BackgroundWorker, *, if_absent: bool) -> Operation[HandleKey]:
    """Register a dynamic worker."""
    return Operation("register", {"worker": worker.to_wire(), "if_absent": if_absent}, _key)


def find(name: object) -> Operation[HandleKey]:
    """Resolve a name, a slot or a handle's text."""
    return Operation("find", {"name": str(name)}, _key)


def start(name: object) -> Operation[HandleKey]:
    """Bring a restart forward, or revive a finished static worker."""
    return Operation("start", {"name": str(name)}, _key)


def restart(name: object) -> Operation[HandleKey]:
    """Stop a worker and start it again."""
    return Operation("restart", {"name": str(name)}, _key)


def terminate(name: object, *, by_operator: bool = False) -> Operation[HandleKey]:
    """Stop a worker for good."""
    return Operation("terminate", {"name": str(name), "by_operator": by_operator}, _key)


def send_signal(name: object, signal_name: str) -> Operation[HandleKey]:
    """Signal a worker's process."""
    return Operation("signal", {"name": str(name), "signal": signal_name}, _key)


def wait(name: object, event: str, timeout: float | None) -> Operation[Answer]:
    """Wait until a worker has been started or has exited.

    Raises:
        ValueError: The timeout is not a number.
    """
    timeout = checked_timeout(timeout)
    patience = None if timeout is None else timeout + GRACE
    return Operation("wait", {"handle": str(name), "for": event, "timeout": timeout}, _same, patience)


def last_exit(handle: object) -> Operation[Answer | None]:
    """Ask how a worker's last life ended."""
    return Operation("last_exit", {"handle": str(handle)}, _last_exit)


def reload(config_path: str | None) -> Operation[Answer]:
    """Let the host read its configuration anew; loading plugins takes what it takes, and the host bounds it."""
    return Operation("reload", _of(config_path), _same, None)


def plan(config_path: str | None) -> Operation[Answer]:
    """Ask what a reload would do; takes as long as a reload."""
    return Operation("plan", _of(config_path), _same, None)


def _of(config_path: str | None) -> dict[str, Any]:
    return {} if config_path is None else {"config_path": config_path}


def scale(name: str, count: int) -> Operation[Answer]:
    """Have another number of instances of a static worker."""
    return Operation("scale", {"name": name, "count": count}, _same)


def upgrade() -> Operation[Answer]:
    """Let the host load the plugins anew, for the workers that are started from then on."""
    return Operation("upgrade", {}, _same, None)


def reexec() -> Operation[Answer]:
    """Let the host execute itself anew; the one that goes on answers, over the same connection."""
    return Operation("reexec", {}, _same, None)


def stop(mode: str) -> Operation[str]:
    """Begin to shut the host down."""
    return Operation("stop", {"mode": mode}, lambda answer: str(answer.get("mode", mode)))


def events(*, notifications: bool = False) -> Operation[None]:
    """Subscribe this connection to events, and to the notifications that wake workers."""
    return Operation("events", {"notifications": True} if notifications else {}, lambda answer: None)


def checked_timeout(timeout: float | None) -> float | None:
    """Return a caller's timeout as the wire has it: None for ever, never negative.

    Raises:
        ValueError: It is not a number.
    """
    if timeout is None or timeout == math.inf:
        return None
    if math.isnan(timeout):
        raise ValueError("timeout must be a number of seconds, or None")
    return max(float(timeout), 0.0)


def parse_handle(text: str) -> HandleKey:
    """Return slot and generation of a handle's text.

    Raises:
        WorkerNotFound: The text is not that of a handle.
    """
    slot, _dot, generation = text.partition(".")
    # Lengths are bounded because int() of a very long text is slow; generations are 64 bits.
    if not (
        slot.isascii()
        and slot.isdigit()
        and len(slot) < 10
        and generation.isascii()
        and generation.isdigit()
        and len(generation) < 20
    ):
        raise WorkerNotFound(
            "text is not that of a background worker handle",
            f"It is {text[:40]!r}; a handle is written slot.generation, such as 3.2.",
            "Use find() for the name of a worker.",
        )
    return int(slot), int(generation)


def _same(answer: Answer) -> Answer:
    return answer


def _key(answer: Answer) -> HandleKey:
    try:
        return parse_handle(str(answer.get("handle")))
    except WorkerNotFound:
        raise ProtocolError("answer of the host has no handle") from None


def _last_exit(answer: Answer) -> Answer | None:
    exit_ = answer.get("last_exit")
    return exit_ if isinstance(exit_, dict) else None
