"""What a background worker is: the registration, its flags and start times, and the checks on it.

Pure: no I/O, no import of a library. The client face, the worker face, the host and the
command line all share it. Fields named ``bgw_*`` mean what PostgreSQL's chapter says;
those without the prefix are ours.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from bgworker import _after, _command, _surroundings
from bgworker import _supervision as supervision
from bgworker._supervision import is_number as is_number
from bgworker._text import is_all_inert
from bgworker._text import printable as printable
from bgworker.errors import RegistrationError

#: Longest name or type in bytes of UTF-8, the terminating zero of C included (bgworker.h).
BGW_MAXLEN: Final = 96
#: Longest bgw_extra in bytes of UTF-8 (bgworker.h).
BGW_EXTRALEN: Final = 128
#: bgw_restart_time of a worker that is never restarted (bgworker.h).
BGW_NEVER_RESTART: Final = -1
#: Exported as in C; not the default here, see STATIC_RESTART_TIME (bgworker.h).
BGW_DEFAULT_RESTART_INTERVAL: Final = 60
#: Longest bgw_restart_time in seconds: one day (guc_tables.c bounds timers alike).
MAX_RESTART_TIME: Final = 86_400.0
#: bgw_restart_time of a static worker that names none (C09).
STATIC_RESTART_TIME: Final = 1.0
#: The values of stop_when; the first is the default, and PostgreSQL's way (C07).
STOP_WHEN: Final = ("never", "phase_lost")
#: Longest bgw_main_arg as JSON; a registration must fit one protocol line (64 KiB) with room to spare.
MAX_MAIN_ARG_BYTES: Final = 32_768


class BgWorkerFlags(enum.IntFlag):
    """What a background worker asks for (C05, C06)."""

    #: Required of every worker.
    BGWORKER_SHMEM_ACCESS = 0x0001
    #: The worker may open its one database connection; needs SHMEM_ACCESS.
    BGWORKER_BACKEND_DATABASE_CONNECTION = 0x0002


class BgWorkerStartTime(enum.Enum):
    """The host state at which a background worker is started (C07)."""

    #: As soon as the host is up; such a worker cannot have a database connection.
    BgWorkerStart_PostmasterStart = "BgWorkerStart_PostmasterStart"
    #: The database answers read-only queries (a hot standby, or more).
    BgWorkerStart_ConsistentState = "BgWorkerStart_ConsistentState"
    #: The database is read-write.
    BgWorkerStart_RecoveryFinished = "BgWorkerStart_RecoveryFinished"


BGWORKER_SHMEM_ACCESS: Final = BgWorkerFlags.BGWORKER_SHMEM_ACCESS
BGWORKER_BACKEND_DATABASE_CONNECTION: Final = BgWorkerFlags.BGWORKER_BACKEND_DATABASE_CONNECTION
#: Both flags, for the worker that has a database connection.
DATABASE_WORKER_FLAGS: Final = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION


@dataclass(frozen=True, kw_only=True)
class BackgroundWorker:
    """The registration of one background worker; the host keeps its own copy.

    Raises nothing by itself: ``sanity_check`` says whether it can be registered.
    """

    #: Shown in log lines, process titles and status; at most 95 bytes of UTF-8 (C04).
    bgw_name: str
    #: Groups workers of one kind; empty means the name (C04).
    bgw_type: str = ""
    bgw_flags: BgWorkerFlags = BGWORKER_SHMEM_ACCESS
    bgw_start_time: BgWorkerStartTime = BgWorkerStartTime.BgWorkerStart_RecoveryFinished
    #: Seconds, or BGW_NEVER_RESTART; None means 1 s for a static worker and never for a dynamic one (C09).
    bgw_restart_time: float | None = None
    #: A plugin's name or an importable module (C10).
    bgw_library_name: str = ""
    bgw_function_name: str = ""
    #: Any JSON value, given to the function as its one argument, by value (C11).
    bgw_main_arg: Any = None
    #: At most 128 bytes of UTF-8, readable through ``my_bgworker_entry()`` (C12).
    bgw_extra: str = ""
    #: Process that gets SIGUSR1 when the worker starts and exits; 0 for nobody (C13).
    bgw_notify_pid: int = 0
    #: NOTIFY channels that set this worker's latch.
    wake_on: tuple[str, ...] = ()
    #: Seconds from SIGTERM to SIGKILL; None means the host's ``shutdown_timeout``.
    stop_timeout: float | None = None
    #: "phase_lost" stops the worker when the phase of ``bgw_start_time`` is lost, and starts it when that is back.
    stop_when: str = "never"
    #: One active instance among all hosts that share the database: it starts when it holds the lock of its name.
    singleton: bool = False
    #: System user to run as, by name or number; None is the host's own. Only a host that runs as root can change it.
    user: str | None = None
    #: System group to run as, by name or number; None is the user's own.
    group: str | None = None
    #: "always" brings the worker back after a success, too, bgw_restart_time later; "crash" is the chapter's way (C29).
    #: None is that, and for a command that is restarted at all "always".
    restart_on: str | None = None
    #: Restarts slow down while the worker keeps failing: any of the keys factor, ceiling, jitter and healthy_after.
    restart_backoff: dict[str, float] | None = None
    #: Exit codes that count as exit code 0.
    success_exit_codes: tuple[int, ...] = ()
    #: The host ends with exit code 7 when this worker has failed and no restart follows.
    essential: bool = False
    #: What asks the running worker to go, without SIG.
    stop_signal: str = "TERM"
    #: Seconds until the function must have been found; None means the host's ``start_timeout``.
    start_timeout: float | None = None
    #: Seconds of running after which the worker gets a new process; a tenth more at random.
    max_age: float | None = None
    #: Bytes of memory, or a text such as "200M", beyond which the worker gets a new process.
    max_memory: int | str | None = None
    #: Seconds without progress after which the worker is stuck, and stopped. Waiting on the latch is no lack of it.
    watchdog: float | None = None
    #: Environment variables, beside those of the host and before those of ``env_file``. Values may be secrets: no repr.
    environment: Mapping[str, str] | None = field(default=None, repr=False)
    #: Absolute path of a file of NAME=value lines, read at each start, as the worker's user.
    env_file: str | None = None
    #: Absolute; None is the host's.
    working_directory: str | None = None
    #: Octal digits, such as "022"; None is the host's.
    umask: str | None = None
    #: -20 to 19; None is the host's. Only root can have a lower one than the host.
    nice: int | None = None
    #: Name of a limit -> integer or "unlimited", for soft and hard, or {"soft": ..., "hard": ...}.
    rlimits: Mapping[str, Any] | None = None
    #: A program and its arguments, instead of a function.
    command: tuple[str, ...] | None = None
    #: A cron expression, such as "0 3 * * *": started at its times instead of at once, and after each end at the next one.
    schedule: str | None = None
    #: Workers that this one is started after: ``NAME``, or ``NAME:started``, ``NAME:ready`` or ``NAME:finished``.
    after: tuple[str, ...] = ()
    #: "notify": others may count on it when it says so with ``worker.ready()``, within its start_timeout; "started": at once.
    ready: str = "started"
    #: Which of several instances it is, from 1; workers.toml makes them. 0 for a worker that is not one of several.
    instance: int = 0

    @property
    def is_database_worker(self) -> bool:
        """Whether the worker may open a database connection."""
        return bool(self.bgw_flags & BGWORKER_BACKEND_DATABASE_CONNECTION)

    @property
    def is_never_restarted(self) -> bool:
        """Whether the worker is forgotten at its first exit; meaningful once normalised."""
        return self.bgw_restart_time == BGW_NEVER_RESTART

    @property
    def stops_with_phase(self) -> bool:
        """Whether the worker runs only while the database is in the phase that it waits for."""
        return self.stop_when == "phase_lost"

    @property
    def needs_own_interpreter(self) -> bool:
        """Whether the worker's process must be executed afresh: a clone of the loader has other surroundings behind it."""
        return self.command is None and any(key in _surroundings.NEED_OWN_INTERPRETER for key in self.surroundings())

    def surroundings(self) -> dict[str, Any]:
        """Return the keys that its process is born with, as JSON values; only those that are set."""
        return {key: value for key in _surroundings.KEYS if (value := getattr(self, key)) is not None}

    @property
    def awaited(self) -> tuple[_after.Awaited, ...]:
        """What ``after`` waits for."""
        return tuple(map(_after.awaited, self.after))

    @property
    def instance_of(self) -> str:
        """The name without the number of the instance; empty for a worker that is not one of several."""
        return self.bgw_name.removesuffix(f"-{self.instance}") if self.instance else ""

    @property
    def says_when_ready(self) -> bool:
        """Whether it is ready only when it has said so."""
        return self.ready == "notify"

    @property
    def stop_signum(self) -> int:
        """The number of ``stop_signal``; meaningful once normalised."""
        return supervision.stop_signum(self.stop_signal)

    def to_dict(self) -> dict[str, Any]:
        """Return the registration as JSON values: its form on the wire."""
        data: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        data["bgw_flags"] = flag_names(self.bgw_flags)
        data["bgw_start_time"] = self.bgw_start_time.value
        for key in ("wake_on", "success_exit_codes", "command", "after"):
            # What is no list goes as it is: whoever judges the registration says what is wrong with it.
            if isinstance(data[key], tuple | set | frozenset):
                data[key] = list(data[key])
        if self.is_never_restarted:
            data["bgw_restart_time"] = "BGW_NEVER_RESTART"
        return data

    def to_wire(self) -> dict[str, Any]:
        """Return what ``to_dict`` says without the keys that have their default; ``worker_from_dict`` puts them back."""
        return {key: value for key, value in self.to_dict().items() if getattr(self, key) != _DEFAULTS[key]}


FIELD_NAMES: Final = tuple(f.name for f in fields(BackgroundWorker))
#: bgw_name has none, and no name equals that.
_DEFAULTS: Final = {f.name: f.default for f in fields(BackgroundWorker)}


def key_hint(key: str, known: Sequence[str]) -> str:
    """Return advice for a key that is none: the nearest, or where all of them are; they are too many for a message."""
    import difflib  # not at the top: this room is imported by everything, and this is for mistakes

    near = difflib.get_close_matches(key[:100], known, n=1)
    return f'Did you mean "{near[0]}"?' if near else "The keys are those of [[worker]] in docs/operating.md."


def flag_names(flags: BgWorkerFlags) -> list[str]:
    """Return the names of the flags that are set, in the order of their bits."""
    return [flag.name for flag in BgWorkerFlags if flag & flags and flag.name]


def worker_from_dict(data: Any) -> BackgroundWorker:
    """Build a registration from JSON values that anybody may have written.

    Raises:
        RegistrationError: A key is not one of ours, or a value has the wrong type.
    """
    if not isinstance(data, dict):
        raise RegistrationError("background worker registration is not an object")
    name = data.get("bgw_name")
    if not isinstance(name, str):
        raise RegistrationError("background worker registration has no bgw_name")

    def refuse(key: str, expected: str) -> RegistrationError:
        return RegistrationError(
            f'background worker "{printable(name)}" cannot be registered: {key} must be {expected}',
            f"The value given is {printable(repr(data[key]))[:200]}." if key != "environment" else "",  # it may be a password
        )

    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in FIELD_NAMES:
            raise RegistrationError(
                f'background worker "{printable(name)}" cannot be registered: "{printable(str(key))}" is not a key of it',
                message_hint=key_hint(str(key), FIELD_NAMES),
            )
        if key in ("bgw_name", "bgw_type", "bgw_library_name", "bgw_function_name", "bgw_extra"):
            if not isinstance(value, str):
                raise refuse(key, "a string")
        elif key == "bgw_flags":
            if not isinstance(value, list) or not all(isinstance(f, str) and f in BgWorkerFlags.__members__ for f in value):
                raise refuse(key, f"a list out of {', '.join(BgWorkerFlags.__members__)}")
            flags = BgWorkerFlags(0)
            for flag in value:
                flags |= BgWorkerFlags[flag]
            value = flags
        elif key == "bgw_start_time":
            if not isinstance(value, str) or value not in BgWorkerStartTime.__members__:
                raise refuse(key, f"one of {', '.join(BgWorkerStartTime.__members__)}")
            value = BgWorkerStartTime[value]
        elif key == "bgw_restart_time":
            if value == "BGW_NEVER_RESTART":
                value = BGW_NEVER_RESTART
            elif value is not None and not is_number(value):
                raise refuse(key, 'a number of seconds or "BGW_NEVER_RESTART"')
        elif key == "bgw_notify_pid":
            if not isinstance(value, int) or isinstance(value, bool):
                raise refuse(key, "a process id")
        elif key == "wake_on":
            if not isinstance(value, list) or not all(isinstance(c, str) for c in value):
                raise refuse(key, "a list of channel names")
            value = tuple(value)
        elif key in ("success_exit_codes", "after"):
            # sanity_check judges these keys and the other supervision keys; only a list can be made a tuple.
            value = tuple(value) if isinstance(value, list) else value
        elif key == "stop_when":
            if value not in STOP_WHEN:
                raise refuse(key, f"one of {', '.join(STOP_WHEN)}")
        elif key == "singleton":
            if not isinstance(value, bool):
                raise refuse(key, "true or false")
        elif key == "command":
            if (expected := _command.expected(value)) is not None:
                raise refuse(key, expected)
            value = tuple(value) if value is not None else None
        elif key in _surroundings.KEYS:
            if (expected := _surroundings.expected(key, value)) is not None:
                raise refuse(key, expected)
        elif key == "stop_timeout" and value is not None and not is_number(value):
            raise refuse(key, "a number of seconds")
        values[key] = value
    return BackgroundWorker(**values)


def sanity_check(worker: BackgroundWorker, *, is_dynamic: bool, has_database: bool = True) -> BackgroundWorker:
    """Return the registration with its defaults filled in, or say why it cannot be registered.

    SanityCheckBackgroundWorker of bgworker.c, with the bounds of design section 4.

    Args:
        worker: What was asked for.
        is_dynamic: Chooses the default restart time (C09).
        has_database: False refuses database workers, because no phase would ever start them.

    Raises:
        RegistrationError: With primary, detail and hint.
    """
    name = printable(worker.bgw_name)

    def refuse(reason: str, detail: str = "", hint: str = "") -> RegistrationError:
        return RegistrationError(f'background worker "{name}" cannot be registered: {reason}', detail, hint)

    if worker.instance and is_dynamic:
        raise refuse("instance is set", "workers.toml makes the instances of a worker, and numbers them.", "Leave it out.")
    if not worker.bgw_name.strip():
        raise refuse("bgw_name is empty")
    for key in ("bgw_name", "bgw_type", "bgw_library_name", "bgw_function_name"):
        text = getattr(worker, key)
        if (problem := _text_problem(text, BGW_MAXLEN - 1)) is not None:
            raise refuse(f"{key} {problem}")
    if (problem := _text_problem(worker.bgw_extra, BGW_EXTRALEN)) is not None:
        raise refuse(f"bgw_extra {problem}")
    if worker.command is not None:
        if (problem_found := _command.find_problem(worker)) is not None:
            raise refuse(*problem_found)
        worker = replace(worker, bgw_library_name=_command.LIBRARY, bgw_function_name=_command.FUNCTION)
    elif not worker.bgw_library_name or not worker.bgw_function_name:
        raise refuse(
            "it names no function",
            hint="Set both bgw_library_name, a plugin or an importable module, and bgw_function_name, a function in it; "
            "or command, a program and its arguments.",
        )
    elif (worker.bgw_library_name, worker.bgw_function_name) == (_command.LIBRARY, _command.FUNCTION):
        raise refuse("it names no command", hint="Set command alone: a program and its arguments.")
    if not worker.bgw_flags & BGWORKER_SHMEM_ACCESS:
        raise refuse(
            "it must ask for shared memory access",
            "BGWORKER_SHMEM_ACCESS is required of every background worker.",
            "Add BGWORKER_SHMEM_ACCESS to bgw_flags, or leave bgw_flags out.",
        )
    if worker.is_database_worker:
        if worker.bgw_start_time is BgWorkerStartTime.BgWorkerStart_PostmasterStart:
            raise refuse(
                "it asks for a database connection at BgWorkerStart_PostmasterStart",
                "At that time no database can be expected to answer.",
                "Use BgWorkerStart_ConsistentState or BgWorkerStart_RecoveryFinished.",
            )
        if not has_database:
            raise refuse(
                "it asks for a database connection, and this host has no database",
                "BGWORKER_BACKEND_DATABASE_CONNECTION is set, but workers.toml has no [database] table.",
                'Add [database] with url = "embedded" or a postgresql:// URL to workers.toml, then start the host again.',
            )
    if worker.singleton and not worker.is_database_worker:
        raise refuse(
            "singleton needs a database connection",
            "The lock that makes it the only one is held by the worker's own session; "
            "BGWORKER_BACKEND_DATABASE_CONNECTION is not in its bgw_flags.",
            "Add BGWORKER_BACKEND_DATABASE_CONNECTION to bgw_flags, or leave singleton out.",
        )
    restart_time = worker.bgw_restart_time
    if restart_time is None:
        # A schedule takes the place of a restart time.
        restart_time = BGW_NEVER_RESTART if is_dynamic or worker.schedule is not None else STATIC_RESTART_TIME
    if restart_time != BGW_NEVER_RESTART and not (is_number(restart_time) and 0 <= restart_time <= MAX_RESTART_TIME):
        raise refuse(
            "bgw_restart_time is out of range",
            f"It is {restart_time}; allowed are 0 to {MAX_RESTART_TIME:.0f} seconds, or BGW_NEVER_RESTART.",
        )
    if worker.stop_timeout is not None and not (is_number(worker.stop_timeout) and 0 < worker.stop_timeout <= MAX_RESTART_TIME):
        raise refuse("stop_timeout is out of range", f"It is {worker.stop_timeout}; allowed are seconds above 0, to one day.")
    if worker.stop_when not in STOP_WHEN:
        raise refuse(f"stop_when must be one of {', '.join(STOP_WHEN)}", f"It is {printable(repr(worker.stop_when))[:200]}.")
    if worker.stops_with_phase and worker.bgw_start_time is BgWorkerStartTime.BgWorkerStart_PostmasterStart:
        raise refuse(
            "it asks to be stopped with a phase, and BgWorkerStart_PostmasterStart has none to lose",
            "Such a worker starts with the host, whatever the database does.",
            "Use BgWorkerStart_ConsistentState or BgWorkerStart_RecoveryFinished, or leave stop_when out.",
        )
    values = {key: getattr(worker, key) for key in supervision.KEYS}
    if worker.restart_on is None:
        # A program that ends with code 0 is a server that somebody stopped, more often than a job that is done.
        is_kept_up = worker.command is not None and restart_time != BGW_NEVER_RESTART
        values["restart_on"] = "always" if is_kept_up else supervision.RESTART_ON[0]
    kept = supervision.normalised(values, None if restart_time == BGW_NEVER_RESTART else restart_time)
    if isinstance(kept, supervision.Problem):
        raise refuse(f"{kept.key} {kept.reason}", printable(kept.detail), kept.hint)
    if worker.schedule is not None and worker.singleton:
        raise refuse(
            "schedule cannot be combined with singleton",
            "Each host would start it at the same time, and those that waited for the lock would run after the first.",
            "Leave schedule out, and let a singleton worker loop over latch_loop(at=...).",
        )
    if worker.bgw_notify_pid < 0 or worker.bgw_notify_pid > 2**31 - 1:
        raise refuse("bgw_notify_pid is not a process id")
    if (problem_found := _surroundings.find_problem(worker.surroundings())) is not None:
        raise refuse(*problem_found)
    for channel in worker.wake_on:
        if not channel or (problem := _text_problem(channel, 63)) is not None:
            raise refuse(f'wake_on channel "{printable(channel)}" {"is empty" if not channel else problem}')
    try:
        size = len(json.dumps(worker.bgw_main_arg, allow_nan=False, ensure_ascii=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise refuse("bgw_main_arg is not a JSON value", f"{error}.".capitalize()) from None
    if size > MAX_MAIN_ARG_BYTES:
        raise refuse("bgw_main_arg is too long", f"It is {size} bytes as JSON; at most {MAX_MAIN_ARG_BYTES} are allowed.")
    return replace(worker, bgw_type=worker.bgw_type or worker.bgw_name, bgw_restart_time=restart_time, **kept)


def _text_problem(text: str, limit: int) -> str | None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "is not valid UTF-8"
    if size > limit:
        return f"is too long: {size} bytes of UTF-8, at most {limit} are allowed"
    if not is_all_inert(text):
        return "has control characters"
    return None
