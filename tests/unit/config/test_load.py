"""workers.toml: what is accepted, and every error that a wrong file gives (T64, T65, T67, T68)."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from bgworker._config.findings import SEE_KEYS
from bgworker._config.load import ConfigurationErrors, load_configuration, parse_configuration
from bgworker._config.model import Configuration, DatabaseSettings, HostSettings, WorkerTable
from bgworker.errors import ConfigurationError

FILE = "/srv/shop/workers.toml"
#: A worker that is right, up to where a test adds to it; two lines and the header.
WORKER = '[[worker]]\nbgw_name = "heartbeat"\nbgw_library_name = "notify_demo"\nbgw_function_name = "heartbeat_main"\n'
BOTH_FLAGS = '["BGWORKER_SHMEM_ACCESS", "BGWORKER_BACKEND_DATABASE_CONNECTION"]'

DESIGN_EXAMPLE = """
[host]
max_worker_processes = 64                # slots; fixed until restart
shared_preload_libraries = ["worker_spi", "notify_demo"]
crash_scope = "attached"                 # or "cluster"
shutdown_timeout = 5.0
python_path = ["."]
control_group = "web"
control_allow = ["view", "register:shop_queue:export"]
[database]
url = "embedded"
[[worker]]
bgw_name = "heartbeat"
bgw_type = "notify_demo"
bgw_flags = ["BGWORKER_SHMEM_ACCESS", "BGWORKER_BACKEND_DATABASE_CONNECTION"]
bgw_start_time = "BgWorkerStart_RecoveryFinished"
bgw_restart_time = 5
bgw_library_name = "notify_demo"
bgw_function_name = "heartbeat_main"
bgw_extra = ""
wake_on = ["orders"]
enabled = true
[worker.bgw_main_arg]
every = 1.0
[settings.worker_spi]
naptime = 10
"""


def errors(text: str, environ: dict[str, str] | None = None) -> list[ConfigurationError]:
    """Return what is wrong with a text."""
    with pytest.raises(ConfigurationErrors) as caught:
        parse_configuration(text, FILE, environ or {})
    return caught.value.errors


def problems(text: str, environ: dict[str, str] | None = None) -> list[str]:
    """Return the primaries without the name of the file, with which each must start."""
    primaries = [error.message_primary for error in errors(text, environ)]
    assert all(primary.startswith(FILE) for primary in primaries)
    return [primary.removeprefix(FILE + ":") for primary in primaries]


def load(text: str, environ: dict[str, str] | None = None) -> Configuration:
    return parse_configuration(text, FILE, environ or {})


def test_design_example() -> None:
    """The file that the design shows is accepted, value by value."""
    configuration = load(DESIGN_EXAMPLE)
    assert configuration == Configuration(
        path=FILE,
        host=HostSettings(
            max_worker_processes=64,
            shared_preload_libraries=["worker_spi", "notify_demo"],
            crash_scope="attached",
            shutdown_timeout=5.0,
            python_path=["/srv/shop"],
            control_group="web",
            control_allow=["view", "register:shop_queue:export"],
        ),
        database=DatabaseSettings(url="embedded"),
        worker=[
            WorkerTable(
                bgw_name="heartbeat",
                bgw_type="notify_demo",
                bgw_flags=["BGWORKER_SHMEM_ACCESS", "BGWORKER_BACKEND_DATABASE_CONNECTION"],
                bgw_start_time="BgWorkerStart_RecoveryFinished",
                bgw_restart_time=5.0,
                bgw_library_name="notify_demo",
                bgw_function_name="heartbeat_main",
                bgw_main_arg={"every": 1.0},
                bgw_extra="",
                wake_on=["orders"],
                enabled=True,
            )
        ],
        settings={"worker_spi": {"naptime": 10}},
    )


def test_empty_file_is_all_defaults() -> None:
    """C05: an empty file is a host with its defaults; a worker may leave bgw_flags out."""
    configuration = load("")
    assert configuration.host == HostSettings(python_path=["/srv/shop"])
    assert configuration.host.max_worker_processes == 64
    assert (configuration.database, configuration.worker, configuration.settings) == (None, [], {})
    assert load(WORKER).worker[0].bgw_flags is msgspec.UNSET


def test_configuration_crosses_a_process_boundary() -> None:
    """A loaded file is plain JSON to msgspec, and comes back equal, with unset keys unset."""
    configuration = load(DESIGN_EXAMPLE + WORKER.replace("heartbeat", "other"))
    text = msgspec.json.encode(configuration)
    assert msgspec.json.decode(text, type=Configuration) == configuration


def test_file_from_disk(tmp_path: Path) -> None:
    """Paths are made absolute, relative to the file; a byte order mark and Windows line ends are no mistake."""
    path = tmp_path / "workers.toml"
    path.write_bytes(b'\xef\xbb\xbf[host]\r\npython_path = [".", "lib", "/abs"]\r\ndata_directory = "state"\r\n')
    configuration = load_configuration(str(path))
    assert configuration.path == str(path)
    assert configuration.host.python_path == [str(tmp_path), str(tmp_path / "lib"), "/abs"]
    assert configuration.host.data_directory == str(tmp_path / "state")


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that is missing, a directory, what has no end and what nobody writes to is one error with reason and name."""
    os.mkfifo(tmp_path / "fifo")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    for path, reason in (
        (tmp_path / "no.toml", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (tmp_path / "fifo", "it is not a regular file"),
        (Path("/dev/zero"), "it is not a regular file"),
        (tmp_path / "huge", "it has more than 64 MiB"),
    ):
        with pytest.raises(ConfigurationErrors) as caught:
            load_configuration(str(path))
        assert caught.value.message_primary == f'could not read configuration file "{path}": {reason}'


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_bytes_that_are_no_text(tmp_path: Path, mark: bytes) -> None:
    """Bytes that are not UTF-8 are reported with line and column, counted in characters."""
    path = tmp_path / "w.toml"
    path.write_bytes(mark + 'a = 1\nb = "é'.encode() + b'\xff"\n')
    with pytest.raises(ConfigurationErrors) as caught:
        load_configuration(str(path))
    assert caught.value.message_primary == f"{path}:2:7: syntax error at line 2, column 7: the text is not valid UTF-8"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[host]\nlog = \n", "2:7: syntax error at line 2, column 7: invalid value"),
        ("[host]\nlog\n", "2:4: syntax error at line 2, column 4: expected '=' after a key in a key/value pair"),
        ('[host]\nlog = "x\n', "2:9: syntax error at line 2, column 9: illegal character '\\n'"),
        ("a = [1\n", "2:1: syntax error at line 2, column 1: unclosed array"),
        ("a = [1", "1:7: syntax error at line 1, column 7: unclosed array"),
        ("[host]\r\n\r\na b\r\n", "3:3: syntax error at line 3, column 3: expected '=' after a key in a key/value pair"),
        ("a = " + "9" * 5000, " syntax error: exceeds the limit (4300 digits) for integer string conversion"),
        ("a = " + "[" * 1000 + "]" * 1000, " arrays, tables or keys are nested too deeply"),
        ("a." * 2000 + "a = 1", " arrays, tables or keys are nested too deeply"),
        ("\x1b[31m = 1", "1:1: syntax error at line 1, column 1: invalid statement"),
    ],
)
def test_syntax_errors(text: str, problem: str) -> None:
    """T64: what is no TOML is reported with the file, line and column; nothing of the text reaches the terminal raw."""
    (found,) = problems(text)
    assert found.startswith(problem)
    assert found.isprintable()


@pytest.mark.parametrize(
    ("text", "place", "detail"),
    [
        ('[host]\nlog = "both"\n\nlog = "files"\n', "4:14", 'The key "log" on line 4 is already there on line 2.'),
        ("[host]\n[database]\n[host]\n", "3:6", 'The table "host" on line 3 is already there on line 1.'),
        (WORKER + 'bgw_name = "x"\n', "5:15", 'The key "bgw_name" on line 5 is already there on line 2.'),
        (WORKER + WORKER + 'bgw_name = "x"\n', "9:15", 'The key "bgw_name" on line 9 is already there on line 6.'),
        ('[settings.a]\nx = """\n[y]\n"""\n[settings.a]\n', "5:12", 'The table "a" on line 5 is already there on line 1.'),
    ],
)
def test_duplicate_keys(text: str, place: str, detail: str) -> None:
    """T65: a key or table that is there twice is refused with both places."""
    (error,) = errors(text)
    assert error.message_primary.startswith(f"{FILE}:{place}: syntax error at line ")
    assert error.message_detail == detail


def test_tuples_of_the_parser_are_not_shown() -> None:
    """A dotted key in a syntax error reads as in the file."""
    assert problems("[settings.a]\n[settings.a]\n") == [
        '2:12: syntax error at line 2, column 12: cannot declare "settings.a" twice'
    ]


@pytest.mark.parametrize("text", ['[worker]\nbgw_name = "a"\n', WORKER + "[worker]\n"])
def test_worker_with_one_bracket(text: str) -> None:
    """The likeliest slip has a hint of its own."""
    (error,) = errors(text)
    assert error.message_hint == "Write [[worker]], with two brackets, above each worker."


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("max_worker_processes = true", "max_worker_processes: expected an integer from 1 to 262143, found true"),
        ("max_worker_processes = 0", "max_worker_processes: expected an integer from 1 to 262143, found the integer 0"),
        ("max_worker_processes = -1", "max_worker_processes: expected an integer from 1 to 262143, found the integer -1"),
        ("max_worker_processes = 262_144", "max_worker_processes: expected an integer from 1 to 262143, found the integer 262144"),
        ("max_worker_processes = 64.0", "max_worker_processes: expected an integer from 1 to 262143, found the number 64.0"),
        ('max_worker_processes = "64"', 'max_worker_processes: expected an integer from 1 to 262143, found the string "64"'),
        (
            "max_worker_processes = 0x" + "f" * 5000,
            "max_worker_processes: expected an integer from 1 to 262143, found an integer of more than",
        ),
        ("shutdown_timeout = inf", "shutdown_timeout: expected a number of seconds above 0, at most 86400, found inf"),
        ("shutdown_timeout = -nan", "shutdown_timeout: expected a number of seconds above 0, at most 86400, found nan"),
        ("shutdown_timeout = 0", "shutdown_timeout: expected a number of seconds above 0, at most 86400, found the integer 0"),
        (
            "start_timeout = 86_400.5",
            "start_timeout: expected a number of seconds above 0, at most 86400, found the number 86400.5",
        ),
        ("load_timeout = 2024-01-01", "load_timeout: expected a number of seconds above 0, at most 86400, found a date or time"),
        ("restart_after_crash = 1", "restart_after_crash: expected true or false, found the integer 1"),
        ('crash_scope = "all"', 'crash_scope: expected "attached" or "cluster", found the string "all"'),
        ('log = "syslog"', 'log: expected "files", "stderr" or "both", found the string "syslog"'),
        ('log_format = "xml"', 'log_format: expected "plain" or "json", found the string "xml"'),
        ("log_rotation_size = -1", "log_rotation_size: expected an integer from 0 to 1099511627776, found the integer -1"),
        ('log_rotation_size = "16MB"', "log_rotation_size: expected an integer from 0 to 1099511627776, found the string"),
        ("log_rotation_keep = 0", "log_rotation_keep: expected an integer from 1 to 1000, found the integer 0"),
        ("spare_workers = -1", "spare_workers: expected an integer from 0 to 1024, found the integer -1"),
        (
            'shared_preload_libraries = "a, b"',
            'shared_preload_libraries: expected an array of names of plugins, found the string "a, b"',
        ),
        (
            'shared_preload_libraries = ["a", 1]',
            "shared_preload_libraries: expected an array of names of plugins, found the integer 1 as item 2",
        ),
        (
            'shared_preload_libraries = ["a b"]',
            'shared_preload_libraries: expected names of plugins, or "*", found the string "a b" as item 1',
        ),
        (
            'shared_preload_libraries = ["a\\n"]',
            'shared_preload_libraries: expected names of plugins, or "*", found the string "a?" as item 1',
        ),
        (
            'shared_preload_libraries = ["worker_spi", "x", "Worker-SPI"]',
            'shared_preload_libraries: item 3, "Worker-SPI", names the same plugin as item 1',
        ),
        ("python_path = []\npython_path2 = 1", None),
        ("python_path = {}", "python_path: expected an array of directories, found a table"),
        ('python_path = [""]', 'python_path: expected directories, found the string "" as item 1'),
        ('python_path = ["a\\u0000"]', 'python_path: expected directories, found the string "a?" as item 1'),
        ('data_directory = ""', "data_directory: expected a string that is not empty"),
        ('data_directory = "a\\u0007"', "data_directory: has control characters"),
        ('control_group = " "', "control_group: expected a string that is not empty"),
        ("control_group = 100", "control_group: expected the name of a system group, found the integer 100"),
        ('control_allow = ["view"]', "control_allow: rights are given to nobody: key control_group is missing"),
    ],
)
def test_host_values(line: str, problem: str | None) -> None:
    """T64: a wrong value in [host] is named with its line and table, what was expected and what was found."""
    (found,) = problems(f"[host]\n\n{line}\n")
    if problem is None:
        assert found == '4: [host]: there is no key "python_path2", the nearest known key is "python_path"'
    else:
        assert found.startswith(f"3: [host] {problem}")


def test_underscores_in_numbers_are_toml() -> None:
    """T64: 1_0 is ten; preloading everything is a list of one star."""
    host = load('[host]\nmax_worker_processes = 1_0\nshutdown_timeout = 3\nshared_preload_libraries = ["*"]').host
    assert (host.max_worker_processes, host.shutdown_timeout, host.shared_preload_libraries) == (10, 3.0, ["*"])


@pytest.mark.parametrize(
    ("right", "is_fine"),
    [
        ("view", True),
        ("operate", True),
        ("register", True),
        ("register:shop_queue", True),
        ("register:shop.queue", True),
        ("register:shop_queue:export", True),
        ("view:x", False),
        ("View", False),
        ("", False),
        ("register:", False),
        ("register::export", False),
        ("register:shop_queue:", False),
        ("register:shop_queue:export:x", False),
        ("register:shop queue", False),
        ("register:shop_queue:a b", False),
        ("register:shop_queue:a\\n", False),
        ("*", False),
    ],
)
def test_rights(right: str, is_fine: bool) -> None:
    """Rights have one of five shapes; a slip in one must not turn into a wider one."""
    text = f'[host]\ncontrol_group = "web"\ncontrol_allow = ["view", "{right}"]\n'
    if is_fine:
        assert load(text).host.control_allow == ["view", right]
    else:
        (error,) = errors(text)
        assert error.message_primary.startswith(f"{FILE}:3: [host] control_allow: expected rights, found the string")
        assert error.message_primary.endswith("as item 2")
        assert '"register:LIBRARY:FUNCTION"' in error.message_detail


def test_rights_do_not_add_to_a_wrong_group() -> None:
    """One slip is one error: a group of the wrong type is not also a missing one."""
    assert len(problems('[host]\ncontrol_group = 5\ncontrol_allow = ["view"]\n')) == 1


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("bgw_nmae", "bgw_name"),
        ("restart_time", "bgw_restart_time"),
        ("BGW_TYPE", "bgw_type"),
        ("bgw_notify_pid", None),
        ("enable", "enabled"),
        ("zzz", None),
    ],
)
def test_key_that_is_not_known(key: str, nearest: str | None) -> None:
    """T64: a key that nobody knows is named with its table and the nearest known key."""
    (error,) = errors(f"{WORKER}{key} = 1\n")
    text = f'{FILE}:5: [[worker]] #1 "heartbeat": there is no key "{key}"'
    if nearest is not None:
        assert error.message_primary == f'{text}, the nearest known key is "{nearest}"'
    assert error.message_primary.startswith(text)
    assert error.message_detail == ""  # forty keys help nobody
    assert error.message_hint == ("" if "nearest" in error.message_primary else SEE_KEYS)


def test_short_table_lists_its_keys() -> None:
    """T64: where there are few keys they are all named; a longer table points to where they are listed."""
    for text in ('url = "embedded"\nurls = 1\n', 'url = "embedded"\nzzz = 1\n'):
        (error,) = errors(f"[database]\n{text}")
        assert (error.message_detail, error.message_hint) == ("The keys here are url, direct_url, name, user.", "")
    (error,) = errors("[host]\nzzz = 1\n")
    assert (error.message_detail, error.message_hint) == ("", SEE_KEYS)


def test_key_in_the_wrong_table() -> None:
    """A key that another table has is pointed to that table."""
    top, wrong = errors('bgw_name = "x"\n[host]\nurl = "embedded"\n')
    assert top.message_primary == f'{FILE}:1: top level: there is no key "bgw_name"'
    assert top.message_hint == "bgw_name is a key of [[worker]]."
    assert wrong.message_primary.startswith(f'{FILE}:3: [host]: there is no key "url"')
    assert wrong.message_hint == "url is a key of [database]."


def test_table_that_is_not_known() -> None:
    """A misspelt table is found at the top."""
    assert problems("\n[[workers]]\n") == ['2: top level: there is no key "workers", the nearest known key is "worker"']
    assert problems("[hots]\n") == ['1: top level: there is no key "hots", the nearest known key is "host"']


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("host = 3", "1: [host]: expected a table, found the integer 3"),
        ("database = true", "1: [database]: expected a table, found true"),
        ("worker = 3", "1: [[worker]]: expected an array of tables, found the integer 3"),
        ("worker = [3]", " [[worker]] #1: expected a table, found the integer 3"),
        ("settings = []", "1: [settings]: expected one table for each plugin, found an empty array"),
        ("[settings]\nworker_spi = 3", "2: [settings.worker_spi]: expected a table, found the integer 3"),
        ("[[host]]", "1: [host]: expected a table, found an array"),
    ],
)
def test_tables_that_are_none(text: str, problem: str) -> None:
    """T64: a value where a table belongs is named as the table it should be."""
    (found,) = problems(text)
    assert found == problem


def test_inline_workers_have_no_line() -> None:
    """Where no line is certain, the error does without."""
    (found,) = problems('worker = [\n{ bgw_name = "a" },\n{ bgw_name = 3 },\n]\n')
    assert found == " [[worker]] #2 bgw_name: expected a string of 1 to 95 bytes, found the integer 3"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("bgw_flags = []", "bgw_flags: it must ask for shared memory access"),
        ('bgw_flags = "BGWORKER_SHMEM_ACCESS"', 'bgw_flags: expected an array of "BGWORKER_SHMEM_ACCESS" and "BGWORKER_BACKEND'),
        ('bgw_flags = ["SHMEM"]', 'bgw_flags: expected an array of "BGWORKER_SHMEM_ACCESS" and'),
        ("bgw_flags = 3", "bgw_flags: expected an array of"),
        (
            'bgw_start_time = "RecoveryFinished"',
            'bgw_start_time: expected "BgWorkerStart_PostmasterStart", "BgWorkerStart_Consistent',
        ),
        (f'bgw_type = "{"x" * 96}"', "bgw_type: is too long: 96 bytes of UTF-8, at most 95 are allowed"),
        (f'bgw_type = "{"é" * 48}"', "bgw_type: is too long: 96 bytes of UTF-8, at most 95 are allowed"),
        ('bgw_type = "a\\u202Eb"', "bgw_type: has control characters"),
        (f'bgw_extra = "{"é" * 65}"', "bgw_extra: is too long: 130 bytes of UTF-8, at most 128 are allowed"),
        ('bgw_extra = "a\\u001b[31m"', "bgw_extra: has control characters"),
        ("stop_timeout = 0", "stop_timeout: expected a number of seconds above 0, at most 86400, found the integer 0"),
        ("stop_timeout = true", "stop_timeout: expected a number of seconds above 0, at most 86400, found true"),
        ('stop_when = "phase"', 'stop_when: expected "never" or "phase_lost", found the string "phase"'),
        ('wake_on = "orders"', 'wake_on: expected an array of names of channels, found the string "orders"'),
        ('wake_on = ["a", ""]', 'wake_on: channel "" is empty'),
        (f'wake_on = ["{"x" * 64}"]', f'wake_on: channel "{"x" * 64}" is too long: 64 bytes of UTF-8, at most 63 are allowed'),
        ('enabled = "no"', 'enabled: expected true or false, found the string "no"'),
        (f'bgw_main_arg = "{"x" * 32_768}"', "bgw_main_arg: is too long"),
        ("bgw_main_arg = nan", "bgw_main_arg: expected a finite number of at most 64 bits, found nan"),
        ("bgw_main_arg = { a = [0, { b = inf }] }", "bgw_main_arg.a[1].b: expected a finite number of at most 64 bits, found inf"),
        (
            "bgw_main_arg = 9223372036854775808",
            "bgw_main_arg: expected a finite number of at most 64 bits, found the integer 92233",
        ),
        ("bgw_main_arg = " + "[" * 51 + "]" * 51, "bgw_main_arg: the value is nested more than 50 levels deep"),
    ],
)
def test_worker_values(line: str, problem: str) -> None:
    """C04 C05 C11 C12 T64: a wrong value of a worker is named with line, table and key; sizes are counted in bytes."""
    (found,) = problems(f"{WORKER}{line}\n")
    assert found.startswith(f'5: [[worker]] #1 "heartbeat" {problem}')


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0.0),
        ("1", 1.0),
        ("0.25", 0.25),
        ("86_400", 86_400.0),
        ('"BGW_NEVER_RESTART"', "BGW_NEVER_RESTART"),
        ("-1", None),
        ("-2", None),
        ("-0.5", None),
        ("86401", None),
        ("86_400_000", None),
        ("86_400_001", None),
        ('"5s"', None),
        ('"bgw_never_restart"', None),
        ("1e309", None),
        ("inf", None),
        ("nan", None),
        ("true", None),
        ("2024-01-01", None),
        ("[]", None),
        ("0x" + "f" * 300, None),
    ],
)
def test_restart_time(value: str, expected: float | str | None) -> None:
    """C09 T68: seconds from 0 to one day or BGW_NEVER_RESTART; anything else is refused, and nothing overflows."""
    text = f"{WORKER}bgw_restart_time = {value}\n"
    if expected is not None:
        assert load(text).worker[0].bgw_restart_time == expected
        return
    (error,) = errors(text)
    bounds = 'a number of seconds from 0 to 86400, or "BGW_NEVER_RESTART"'
    assert error.message_primary.startswith(f'{FILE}:5: [[worker]] #1 "heartbeat" bgw_restart_time: expected {bounds}, found ')
    assert ('"BGW_NEVER_RESTART"' in error.message_hint) == (value == "-1")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("x" * 95, None),
        ("x" * 96, "is too long: 96 bytes of UTF-8, at most 95 are allowed"),
        ("é" * 48, "is too long: 96 bytes of UTF-8, at most 95 are allowed"),
        ("", "is empty"),
        ("  ", "is empty"),
        ("a\\tb", "has control characters"),
        ("a\\u2028b", "has control characters"),
    ],
)
def test_names(name: str, problem: str | None) -> None:
    """C04: a name has 1 to 95 bytes, and nothing in it that a terminal obeys; the error shows none of that either."""
    text = WORKER.replace('"heartbeat"', f'"{name}"')
    if problem is None:
        assert load(text).worker[0].bgw_name == name
    else:
        (found,) = problems(text)
        assert found.startswith("2: [[worker]] #1")
        assert found.endswith(f"bgw_name: {problem}")
        assert found.isprintable()


def test_worker_without_a_name() -> None:
    """A worker that has no name is known by its place."""
    assert problems('\n[[worker]]\nbgw_type = "x"\n') == ["2: [[worker]] #1: key bgw_name is missing"]


def test_library_without_a_function() -> None:
    """A worker of its own names library and function."""
    assert problems('[[worker]]\nbgw_name = "a"\nbgw_library_name = "b"\n') == [
        '1: [[worker]] #1 "a": key bgw_function_name is missing'
    ]


def test_start_time_without_a_database() -> None:
    """C07 C08: a database worker cannot start with the host; both keys of the slip are in the error."""
    line = f'bgw_flags = {BOTH_FLAGS}\nbgw_start_time = "BgWorkerStart_PostmasterStart"\n'
    (found,) = problems(f'{WORKER}{line}[database]\nurl = "embedded"\n')
    assert (
        found == '6: [[worker]] #1 "heartbeat" bgw_start_time: it asks for a database connection at BgWorkerStart_PostmasterStart'
    )


def test_stop_when_needs_a_phase_to_lose() -> None:
    """C07: a worker that starts with the host cannot be stopped with a phase; any other may say so, or take it back."""
    line = 'bgw_start_time = "BgWorkerStart_PostmasterStart"\nstop_when = "phase_lost"\n'
    (found,) = problems(WORKER + line)
    reason = "it asks to be stopped with a phase, and BgWorkerStart_PostmasterStart has none to lose"
    assert found == f'6: [[worker]] #1 "heartbeat" stop_when: {reason}'
    assert load(WORKER + 'stop_when = "phase_lost"\n').worker[0].stop_when == "phase_lost"
    assert load(WORKER + line.replace("phase_lost", "never")).worker[0].stop_when == "never"


def test_database_worker_without_a_database() -> None:
    """C06: without [database] there are no database workers, unless they are switched off."""
    line = f"bgw_flags = {BOTH_FLAGS}\n"
    (found,) = problems(WORKER + line)
    assert found == '5: [[worker]] #1 "heartbeat" bgw_flags: it asks for a database connection, and this host has no database'
    assert load(f"{WORKER}{line}enabled = false\n").worker[0].enabled is False


def test_one_reason_is_given_once() -> None:
    """A reason that holds for a key alone is not repeated for it together with another; different ones are all given."""
    line = f'bgw_flags = {BOTH_FLAGS}\nbgw_start_time = "BgWorkerStart_ConsistentState"\n'
    assert len(problems(WORKER + line)) == 1
    assert len(problems(WORKER + 'wake_on = ["", "a\\n", "ok", ""]\n')) == 2


def test_changes_to_a_plugins_worker_are_checked_alike() -> None:
    """An entry that only changes a plugin's worker needs no library, and its values are held to the same bounds."""
    assert load('[[worker]]\nbgw_name = "a"\nenabled = false\n').worker[0].is_override
    assert problems('[[worker]]\nbgw_name = "a"\nbgw_flags = []\n') == [
        '3: [[worker]] #1 "a" bgw_flags: it must ask for shared memory access'
    ]


def test_duplicate_names() -> None:
    """T65: workers of one name are refused, each with the place of the first."""
    text = WORKER + WORKER + '[[worker]]\nbgw_name = "other"\n' + '[[worker]]\nbgw_name = "heartbeat"\nenabled = false\n'
    assert problems(text) == [
        '6: [[worker]] #2 "heartbeat" bgw_name: the name is already that of [[worker]] #1 on line 2',
        '12: [[worker]] #4 "heartbeat" bgw_name: the name is already that of [[worker]] #1 on line 2',
    ]


def test_dates_become_strings() -> None:
    """C11: a date or time reaches worker and plugin as its RFC 3339 string."""
    configuration = load(
        f"{WORKER}bgw_main_arg = {{ a = 2024-01-02, b = [2024-01-02T03:04:05Z], c = 03:04:05 }}\n[settings.x]\nsince = 2024-01-02\n"
    )
    assert configuration.worker[0].bgw_main_arg == {"a": "2024-01-02", "b": ["2024-01-02T03:04:05+00:00"], "c": "03:04:05"}
    assert configuration.settings == {"x": {"since": "2024-01-02"}}


def test_settings_values() -> None:
    """Settings are the plugin's to check, apart from what no message can carry."""
    assert load('[settings.x]\nanything = [1, "a", { b = true }]\n').settings == {"x": {"anything": [1, "a", {"b": True}]}}
    assert problems("[settings.x]\na.b = [1, inf]\nc = -nan\n") == [
        "2: [settings.x] a.b[1]: expected a finite number of at most 64 bits, found inf",
        "3: [settings.x] c: expected a finite number of at most 64 bits, found nan",
    ]


def test_deep_settings() -> None:
    """Tables nested past what a message carries are refused before anything overflows."""
    assert problems("[settings.x]\n" + "a." * 900 + "a = 1\n")[0].endswith("the value is nested more than 50 levels deep")
