"""``@background_worker``: registration keys written on the worker's own function.

Pure and cheap: it sets one attribute and registers nothing. What reads the attribute is the
loader, for workers that a distribution offers in the entry-point group ``bgworker.workers``,
and the command line, for ``LIBRARY:FUNCTION``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypedDict, TypeVar

from bgworker._spec import FIELD_NAMES, key_hint
from bgworker.errors import RegistrationError

if TYPE_CHECKING:
    from typing import Unpack

    from bgworker._spec import BgWorkerFlags, BgWorkerStartTime

__all__ = ["background_worker", "declared_keys"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

#: Where the keys are kept.
_ATTRIBUTE: Final = "__background_worker__"
#: Known from elsewhere: the function itself, and whoever registers the worker.
_REFUSED: Final = ("bgw_library_name", "bgw_function_name", "bgw_notify_pid", "command", "instance")
_KEYS: Final = tuple(name for name in FIELD_NAMES if name not in _REFUSED)


class WorkerKeys(TypedDict, total=False):
    """The keys of a registration that a function can carry; each means what it means in ``BackgroundWorker``."""

    bgw_name: str
    bgw_type: str
    bgw_flags: BgWorkerFlags
    bgw_start_time: BgWorkerStartTime
    bgw_restart_time: float | None
    bgw_main_arg: Any
    bgw_extra: str
    wake_on: tuple[str, ...]
    stop_timeout: float | None
    stop_when: str
    singleton: bool
    user: str | None
    group: str | None
    restart_on: str | None
    restart_backoff: dict[str, float] | None
    success_exit_codes: tuple[int, ...]
    essential: bool
    stop_signal: str
    start_timeout: float | None
    max_age: float | None
    max_memory: int | str | None
    watchdog: float | None
    environment: Mapping[str, str] | None
    env_file: str | None
    working_directory: str | None
    umask: str | None
    nice: int | None
    rlimits: Mapping[str, Any] | None
    schedule: str | None
    after: tuple[str, ...]
    ready: str


def background_worker(**keys: Unpack[WorkerKeys]) -> Callable[[_Function], _Function]:
    """Give a worker's function the keys of its registration; the function itself stays as it is.

    ::

        @background_worker(bgw_name="drain orders", bgw_restart_time=5, wake_on=("orders",))
        def drain(main_arg): ...

    with ``order-drain = "shop_queue:drain"`` in the entry-point group ``bgworker.workers`` is
    a static worker as soon as the plugin is listed in shared_preload_libraries. Without the
    decorator, or without ``bgw_name``, the worker is called after the entry point.

    Raises:
        RegistrationError: A key is not one of a registration, or is not the function's to set.
    """
    for key in keys:
        if key not in _KEYS:
            raise RegistrationError(
                f'background worker function cannot be declared: "{key}" is not a key of it',
                message_hint=key_hint(key, _KEYS),
            )

    def declare(function: _Function) -> _Function:
        setattr(function, _ATTRIBUTE, dict(keys))
        return function

    return declare


def declared_keys(function: Any) -> dict[str, Any]:
    """Return a copy of the keys that a function carries; empty when it carries none."""
    # vars() and not getattr(): an instance with a permissive __getattr__ would answer with anything.
    keys = getattr(function, "__dict__", {}).get(_ATTRIBUTE, {})
    return dict(keys) if isinstance(keys, dict) else {}
