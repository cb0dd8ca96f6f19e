"""The shape of workers.toml: one Struct for each table, with what each key means and expects.

Pure declarations. ``load.py`` reads files into them, ``schema.py`` describes them to editors.
What the shape cannot say (names and their bytes, flags against start times) is checked by
``checks.py`` and ``bgworker._spec``. Adapters, the loader and the commands may import it.

Each key carries a Meta with a description, for the schema, and ``extra["expected"]``, the
words of an error: "expected <these>, found ...".
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from bgworker._cron import MAX_EXPRESSION
from bgworker._spec import BGW_EXTRALEN, BGW_MAXLEN, MAX_RESTART_TIME, printable
from bgworker._supervision import BACKOFF, MOST_INSTANCES, STOP_SIGNALS
from bgworker._surroundings import LIMITS

#: MAX_BACKENDS of PostgreSQL, which bounds its max_worker_processes (guc_tables.c).
MAX_SLOTS: Final = 262_143
#: What a process can address on 64-bit Linux, and so what any limit on memory may be.
MAX_SHARED_MEMORY: Final = 1 << 47
#: Bounds of what a log may take up: nobody means more.
MAX_LOG_SIZE: Final = 1 << 40
MAX_LOG_FILES: Final = 1000
#: More idle processes than this are a slip of the keyboard.
MAX_SPARE_WORKERS: Final = 1024
#: A worker's bgw_restart_time that means never, as the file spells it.
NEVER: Final = "BGW_NEVER_RESTART"

_PLUGIN_PATTERN: Final = r"^(\*|[A-Za-z0-9_][A-Za-z0-9._-]*)$"
_RIGHT_PATTERN: Final = r"^(view|operate|register(:[A-Za-z0-9_][A-Za-z0-9_.-]*(:[^:\s]+)?)?)$"


def _key(description: str, expected: str, **json_schema: Any) -> Meta:
    """Return the Meta of one key; ``json_schema`` is for editors only, ``checks.py`` decides with better words."""
    return Meta(description=description, extra={"expected": expected}, extra_json_schema=json_schema or None)


#: Above 0, at most one day: the bounds of every timer here, see MAX_RESTART_TIME.
Timeout = Annotated[float, Meta(gt=0, le=MAX_RESTART_TIME)]
_TIMEOUT: Final = f"a number of seconds above 0, at most {MAX_RESTART_TIME:.0f}"
#: For editors only, as in _key.
PluginName = Annotated[str, Meta(extra_json_schema={"pattern": _PLUGIN_PATTERN})]
Right = Annotated[str, Meta(extra_json_schema={"pattern": _RIGHT_PATTERN})]
Directory = Annotated[str, Meta(extra_json_schema={"minLength": 1})]
Channel = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": 63})]
ExitCode = Annotated[int, Meta(ge=0, le=255)]
UrlText = Annotated[str, Meta(extra_json_schema={"pattern": "^(embedded$|postgres(ql)?://)"})]
_ONE_LIMIT: Final = {"anyOf": [{"type": "integer", "minimum": 0}, {"const": "unlimited"}]}
_LIMIT_SCHEMA: Final = {
    "anyOf": [
        *_ONE_LIMIT["anyOf"],
        {
            "type": "object",
            "properties": {"soft": _ONE_LIMIT, "hard": _ONE_LIMIT},
            "required": ["soft", "hard"],
            "additionalProperties": False,
        },
    ]
}
_TEXT: Final = f"a string of 1 to {BGW_MAXLEN - 1} bytes"


class HostSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The host itself."""

    max_worker_processes: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_SLOTS)],
        _key("Number of slots for background workers. Fixed until the host is started again.", f"an integer from 1 to {MAX_SLOTS}"),
    ] = 64
    shared_preload_libraries: Annotated[
        list[PluginName],
        _key(
            "Plugins to activate, by the name of their distribution, plugin or module; upper and lower case, - and _ are "
            'the same. ["*"] activates all that are installed.',
            "an array of names of plugins",
        ),
    ] = field(default_factory=list)
    crash_scope: Annotated[
        Literal["attached", "cluster"],
        _key(
            "Who is restarted when a worker crashes: those attached to a shared segment that it was attached to, or every worker.",
            '"attached" or "cluster"',
        ),
    ] = "attached"
    restart_after_crash: Annotated[
        bool, _key("false: a crash that would restart other workers shuts the host down, exit code 1.", "true or false")
    ] = True
    max_shared_memory: Annotated[
        Annotated[int, Meta(ge=0, le=MAX_SHARED_MEMORY)],
        _key(
            "Bytes that all shared memory segments of workers may have together; 0 for none.",
            f"an integer from 0 to {MAX_SHARED_MEMORY}",
        ),
    ] = 268_435_456
    shutdown_timeout: Annotated[
        Timeout, _key("Seconds from SIGTERM to SIGKILL; the default of each worker's stop_timeout.", _TIMEOUT)
    ] = 5.0
    start_timeout: Annotated[Timeout, _key("Seconds that a worker may take until its function is found.", _TIMEOUT)] = 60.0
    load_timeout: Annotated[Timeout, _key("Seconds that a plugin may take to be imported and initialised.", _TIMEOUT)] = 30.0
    python_path: Annotated[
        list[Directory],
        _key(
            "Directories put on the workers' sys.path, relative to this file, so that a plain module beside it works.",
            "an array of directories",
        ),
    ] = field(default_factory=lambda: ["."])
    control_group: Annotated[
        str | None,
        _key("Members of this system group may connect, with the rights of control_allow.", "the name of a system group"),
    ] = None
    control_allow: Annotated[
        list[Right],
        _key(
            "What members of control_group may do; the owner and root may do everything.",
            'an array of "view", "operate", "register", "register:LIBRARY" or "register:LIBRARY:FUNCTION"',
        ),
    ] = field(default_factory=list)
    data_directory: Annotated[
        str | None,
        _key(
            "Directory for sockets, logs and the embedded database, relative to this file. -D, BGWORKER_DATA and STATE_DIRECTORY "
            'come first; "data" where nothing names one.',
            "a path",
            minLength=1,
        ),
    ] = None
    log: Annotated[
        Literal["files", "stderr", "both"] | None,
        _key(
            "Where log lines go. Default: files; both under systemd or as process 1.",
            '"files", "stderr" or "both"',
        ),
    ] = None
    log_format: Annotated[
        Literal["plain", "json"],
        _key("How log lines look: for people, or one JSON object each.", '"plain" or "json"'),
    ] = "plain"
    log_rotation_size: Annotated[
        Annotated[int, Meta(ge=0, le=MAX_LOG_SIZE)],
        _key(
            "Bytes at which a log file is put aside and a new one begins; 0 lets log files grow without end.",
            f"an integer from 0 to {MAX_LOG_SIZE}",
        ),
    ] = 16_777_216
    log_rotation_keep: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_LOG_FILES)],
        _key(
            "How many files that were put aside are kept of each log; they are compressed.", f"an integer from 1 to {MAX_LOG_FILES}"
        ),
    ] = 5
    spare_workers: Annotated[
        Annotated[int, Meta(ge=0, le=MAX_SPARE_WORKERS)],
        _key(
            "Processes kept ready for workers of preloaded libraries yet to be started.",
            f"an integer from 0 to {MAX_SPARE_WORKERS}",
        ),
    ] = 2


class EnvironmentReference(Struct, frozen=True, forbid_unknown_fields=True):
    """A value that is kept out of the file."""

    env: Annotated[
        str,
        _key("Name of the environment variable that holds the value.", "the name of an environment variable", minLength=1),
    ]


_URL: Final = 'a URL that starts with postgresql://, or { env = "NAME" }'


class DatabaseSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The database. Without this table there is none, and no database workers."""

    #: A string once loaded: references to the environment are resolved, and may hold a password.
    url: Annotated[
        UrlText | EnvironmentReference,
        _key('"embedded", or the URL of a server, or { env = "NAME" }.', f'"embedded", {_URL}'),
    ]
    direct_url: Annotated[
        str | EnvironmentReference | None,
        _key(
            "URL of the server itself when url leads to a pooler; used for LISTEN, wake_on and locks.",
            _URL,
        ),
    ] = None
    name: Annotated[
        str,
        _key("Database of the embedded server, created if it is missing.", "the name of a database", minLength=1, maxLength=63),
    ] = "postgres"
    user: Annotated[
        str | None,
        _key(
            "System user that runs the embedded server when the host is started by root.", "the name of a system user", minLength=1
        ),
    ] = None

    def __repr__(self) -> str:
        # A repr ends up in tracebacks and debug lines, and URLs hold passwords.
        kind = "embedded" if self.url == "embedded" else "..."
        return f"DatabaseSettings(url={kind!r}, name={self.name!r}, user={self.user!r})"


class WorkerTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A worker of its own, if it names a library or a command; else changes to the plugin's worker of this name."""

    bgw_name: Annotated[
        str,
        _key("Name in log lines, process titles and status; 95 bytes at most.", _TEXT, minLength=1, maxLength=BGW_MAXLEN - 1),
    ]
    bgw_type: Annotated[
        str | UnsetType,
        _key("Groups workers of one kind. Default: bgw_name.", _TEXT, maxLength=BGW_MAXLEN - 1),
    ] = UNSET
    bgw_flags: Annotated[
        list[Literal["BGWORKER_SHMEM_ACCESS", "BGWORKER_BACKEND_DATABASE_CONNECTION"]] | UnsetType,
        _key(
            "What the worker asks for. BGWORKER_SHMEM_ACCESS is required, and is the default; "
            "BGWORKER_BACKEND_DATABASE_CONNECTION lets it connect to the database.",
            'an array of "BGWORKER_SHMEM_ACCESS" and "BGWORKER_BACKEND_DATABASE_CONNECTION"',
        ),
    ] = UNSET
    bgw_start_time: Annotated[
        Literal["BgWorkerStart_PostmasterStart", "BgWorkerStart_ConsistentState", "BgWorkerStart_RecoveryFinished"] | UnsetType,
        _key(
            "When the worker is started: with the host (no database then), when the database answers read-only queries, "
            "or when it is read-write, which is the default.",
            '"BgWorkerStart_PostmasterStart", "BgWorkerStart_ConsistentState" or "BgWorkerStart_RecoveryFinished"',
        ),
    ] = UNSET
    bgw_restart_time: Annotated[
        Annotated[float, Meta(ge=0, le=MAX_RESTART_TIME)] | Literal["BGW_NEVER_RESTART"] | UnsetType,
        _key(
            'Seconds until the worker is started again after an exit with code 1, or "BGW_NEVER_RESTART". Default: 1.',
            f'a number of seconds from 0 to {MAX_RESTART_TIME:.0f}, or "{NEVER}"',
        ),
    ] = UNSET
    bgw_library_name: Annotated[
        str | UnsetType,
        _key("A plugin's name or an importable module.", _TEXT, maxLength=BGW_MAXLEN - 1),
    ] = UNSET
    bgw_function_name: Annotated[
        str | UnsetType,
        _key("The function in the library that is the worker.", _TEXT, maxLength=BGW_MAXLEN - 1),
    ] = UNSET
    bgw_main_arg: Annotated[
        Any | UnsetType,
        _key("Handed to the function as its one argument. A date or time arrives as its RFC 3339 string.", "any value"),
    ] = UNSET
    bgw_extra: Annotated[
        str | UnsetType,
        _key(
            "Readable in the worker through my_bgworker_entry(); 128 bytes at most.",
            f"a string of at most {BGW_EXTRALEN} bytes",
            maxLength=BGW_EXTRALEN,
        ),
    ] = UNSET
    wake_on: Annotated[
        list[Channel] | UnsetType,
        _key(
            "NOTIFY channels that set this worker's latch; needs [database].",
            "an array of names of channels",
        ),
    ] = UNSET
    stop_timeout: Annotated[
        Timeout | UnsetType,
        _key("Seconds from SIGTERM to SIGKILL. Default: shutdown_timeout of [host].", _TIMEOUT),
    ] = UNSET
    stop_when: Annotated[
        Literal["never", "phase_lost"] | UnsetType,
        _key(
            '"phase_lost" stops the worker when the database is no longer as bgw_start_time asks, and starts it when it is '
            'again. Default: "never".',
            '"never" or "phase_lost"',
        ),
    ] = UNSET
    singleton: Annotated[
        bool | UnsetType,
        _key(
            "true: one active instance among all hosts that share the database; the others wait. For database workers.",
            "true or false",
        ),
    ] = UNSET
    command: Annotated[
        list[str] | UnsetType,
        _key(
            "A program and its arguments, instead of bgw_library_name and bgw_function_name. No shell reads it.",
            "an array of strings, a program and its arguments",
            minItems=1,
        ),
    ] = UNSET
    user: Annotated[
        str | UnsetType,
        _key(
            "System user to run as, by name or number; the host must run as root. Default: the host's user.",
            "a string, the name or number of a user",
        ),
    ] = UNSET
    group: Annotated[
        str | UnsetType,
        _key("System group to run as, by name or number. Default: the user's own.", "a string, the name or number of a group"),
    ] = UNSET
    restart_on: Annotated[
        Literal["crash", "always"] | UnsetType,
        _key(
            '"always" starts the worker again after a success, too, bgw_restart_time later. "crash" does not. Default: "crash", '
            'and "always" for a command.',
            '"crash" or "always"',
        ),
    ] = UNSET
    restart_backoff: Annotated[
        dict[str, Any] | UnsetType,
        _key(
            "Restarts slow down while the worker keeps failing. A table whose keys are all optional; an empty one is the defaults.",
            f"a table with any of the keys {', '.join(BACKOFF)}",
            properties={
                key: {"type": "number", "minimum": least, "maximum": greatest, "default": default}
                for key, (default, least, greatest) in BACKOFF.items()
            },
            additionalProperties=False,
        ),
    ] = UNSET
    success_exit_codes: Annotated[
        list[ExitCode] | UnsetType,
        _key("Exit codes that count as exit code 0.", "an array of exit codes from 0 to 255"),
    ] = UNSET
    essential: Annotated[
        bool | UnsetType,
        _key(
            "true: the host ends with exit code 7 when this worker has failed and no restart follows.",
            "true or false",
        ),
    ] = UNSET
    stop_signal: Annotated[
        str | UnsetType,
        _key(
            "The signal that asks the running worker to go. Default: TERM.",
            f"one of {', '.join(STOP_SIGNALS)}",
            enum=[*STOP_SIGNALS, *(f"SIG{name}" for name in STOP_SIGNALS)],
        ),
    ] = UNSET
    start_timeout: Annotated[
        Timeout | UnsetType,
        _key("Seconds that the worker may take until its function is found. Default: start_timeout of [host].", _TIMEOUT),
    ] = UNSET
    max_age: Annotated[
        Timeout | UnsetType,
        _key("Seconds of running after which the worker gets a new process; up to a tenth more, at random.", _TIMEOUT),
    ] = UNSET
    max_memory: Annotated[
        Annotated[int, Meta(gt=0, le=MAX_SHARED_MEMORY)] | str | UnsetType,
        _key(
            "Bytes of memory beyond which the worker gets a new process; a text may end in K, M or G.",
            'a number of bytes above 0, or a text such as "200M"',
        ),
    ] = UNSET
    watchdog: Annotated[
        Timeout | UnsetType,
        _key(
            "Seconds without progress after which the worker counts as stuck: it writes where it is to its log, is stopped, "
            "and restarted by its rules. It makes progress when it reaches its latch, reports its activity, or calls progress().",
            f"a number of seconds from 1 to {MAX_RESTART_TIME:.0f}",
        ),
    ] = UNSET
    environment: Annotated[
        dict[str, Any] | UnsetType,
        _key(
            "Environment variables, beside those that the host has; they win over those of env_file.",
            "a table of strings",
            additionalProperties={"type": "string"},
        ),
    ] = UNSET
    env_file: Annotated[
        str | UnsetType,
        _key(
            "File of environment variables, lines of NAME=value, relative to this file; read at each start of the worker.",
            "a path",
            minLength=1,
        ),
    ] = UNSET
    working_directory: Annotated[
        str | UnsetType,
        _key("Directory to start in, relative to this file. Default: the host's.", "a path", minLength=1),
    ] = UNSET
    umask: Annotated[
        str | UnsetType,
        _key(
            "Permissions that files it makes do not get. Default: the host's.",
            'a string of octal digits, such as "022"',
            pattern="^0?[0-7]{3}$",
        ),
    ] = UNSET
    nice: Annotated[
        Annotated[int, Meta(ge=-20, le=19)] | UnsetType,
        _key("-20, the most favoured, to 19. Default: the host's; only root can go below it.", "an integer from -20 to 19"),
    ] = UNSET
    rlimits: Annotated[
        dict[str, Any] | UnsetType,
        _key(
            f"Resource limits: a number for soft and hard limit, or {{ soft, hard }}. They are {', '.join(LIMITS)}.",
            "a table of limits",
            propertyNames={"enum": list(LIMITS)},
            additionalProperties=_LIMIT_SCHEMA,
        ),
    ] = UNSET
    schedule: Annotated[
        str | UnsetType,
        _key(
            "Times at which the worker is started instead of at once: a cron expression of five fields, in the host's local time. "
            "It runs to its end and is started again at the next time.",
            'a cron expression, such as "*/15 * * * *"',
            maxLength=MAX_EXPRESSION,
        ),
    ] = UNSET
    after: Annotated[
        list[str] | UnsetType,
        _key(
            'Workers that this one is started after, each as "NAME" or "NAME:started", "NAME:ready" or "NAME:finished"; '
            "at a shutdown it is stopped before they are.",
            'an array of "NAME", "NAME:started", "NAME:ready" or "NAME:finished"',
        ),
    ] = UNSET
    ready: Annotated[
        Literal["started", "notify"] | UnsetType,
        _key(
            '"notify": the worker is ready when it calls ready(), for which it has start_timeout; others can wait for that with '
            'after. Default: "started".',
            '"started" or "notify"',
        ),
    ] = UNSET
    instances: Annotated[
        Annotated[int, Meta(ge=1, le=MOST_INSTANCES)] | UnsetType,
        _key(
            "How many of this worker run; their names are NAME-1, NAME-2 and so on. Default: one, with the name as it is.",
            f"an integer from 1 to {MOST_INSTANCES}",
        ),
    ] = UNSET
    enabled: Annotated[bool, _key("false switches the worker off.", "true or false")] = True

    @property
    def names(self) -> list[str]:
        """The names of the workers that it makes."""
        if not isinstance(self.instances, int):
            return [self.bgw_name]
        return [f"{self.bgw_name}-{number}" for number in range(1, self.instances + 1)]

    def __repr__(self) -> str:
        # As of DatabaseSettings: environment may hold passwords.
        return f"WorkerTable(bgw_name={self.bgw_name!r}, ...)"

    @property
    def is_override(self) -> bool:
        """Whether the entry changes a plugin's worker instead of being a worker of its own."""
        return self.bgw_library_name is UNSET and self.command is UNSET


class ConfigurationTables(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """workers.toml of bgworker."""

    include: Annotated[
        list[Directory],
        _key(
            "Files with [[worker]] and [settings] tables that belong to this one, as paths or patterns relative to it: "
            '["conf.d/*.toml"]. Stands above the first table.',
            "an array of paths",
        ),
    ] = field(default_factory=list)
    host: HostSettings = field(default_factory=HostSettings)
    database: DatabaseSettings | None = None
    worker: Annotated[list[WorkerTable], _key("The static workers.", "[[worker]], an array of tables")] = field(
        default_factory=list
    )
    settings: Annotated[
        dict[str, dict[str, Any]],
        _key(
            "Each plugin's own settings, in [settings.PLUGIN]; the plugin says which there are and checks them.",
            "one table for each plugin, as [settings.PLUGIN]",
        ),
    ] = field(default_factory=dict)


class Configuration(ConfigurationTables, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole file as loaded: every path absolute, every reference to the environment resolved."""

    #: The file, as its errors name it; empty for defaults that no file set.
    path: str = ""
    #: Environment variables that it takes values from; they hold passwords.
    references: list[str] = field(default_factory=list)
    #: Absolute paths of the files that it includes.
    included: list[str] = field(default_factory=list)
    #: File, and number in it, of each worker; empty when nothing is included.
    places: list[tuple[str, int]] = field(default_factory=list)
    #: How an error begins of each [[worker]] that names neither library nor command, by its name: only a plugin makes it one.
    overrides: dict[str, str] = field(default_factory=dict)


def worker_label(number: int, name: str | None) -> str:
    """Return how messages name one [[worker]]: by its place, counted from 1, and its name if it has a usable one."""
    return f"[[worker]] #{number}" + (f' "{shortened(name)}"' if name else "")


def shortened(text: str, limit: int = 60) -> str:
    """Return the text on one line, inert on a terminal, cut in the middle when it is long."""
    text = printable(text)
    return text if len(text) <= limit else f"{text[: limit // 2]}...{text[-(limit // 2 - 3) :]}"
