"""workers.toml with many mistakes, of many entries, of any content: every error at once, and never anything else."""

from __future__ import annotations

import contextlib
import pickle
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgworker._config.load import ConfigurationErrors, parse_configuration
from bgworker._config.model import Configuration, DatabaseSettings, HostSettings, WorkerTable
from bgworker.errors import ConfigurationError, error_from_dict

FILE = "/srv/shop/workers.toml"
#: A worker that is right, up to where a test adds to it; two lines and the header.
WORKER = '[[worker]]\nbgw_name = "heartbeat"\nbgw_library_name = "notify_demo"\nbgw_function_name = "heartbeat_main"\n'


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


TEN_MISTAKES = """\
[host]
max_worker_processes = true
crash_scop = "cluster"
[database]
url = { env = "NOT_SET" }
[[worker]]
bgw_name = "heartbeat"
bgw_library_name = "notify_demo"
bgw_restart_time = "5s"
bgw_flags = ["BGWORKER_BACKEND_DATABASE_CONNECTION"]
bgw_start_time = "BgWorkerStart_PostmasterStart"
bgw_extra = "\\u001b"
[[worker]]
bgw_name = "heartbeat"
wake_on = [3]
[settings.worker_spi]
naptime = inf
"""


def test_all_errors_at_once() -> None:
    """A file with so many mistakes gives so many errors, from the first line to the last."""
    found = problems(TEN_MISTAKES)
    assert [problem.partition(":")[0] for problem in found] == ["2", "3", "5", "6", "9", "10", "11", "12", "14", "15", "17"]
    for problem, part in zip(
        found,
        [
            "[host] max_worker_processes",
            '"crash_scope"',
            '"NOT_SET"',
            "bgw_function_name is missing",
            '"5s"',
            "shared memory",
            "PostmasterStart",
            "control characters",
            "[[worker]] #1 on line 7",
            "found the integer 3 as item 1",
            "[settings.worker_spi] naptime",
        ],
        strict=True,
    ):
        assert part in problem


def test_errors_as_one_error() -> None:
    """Several errors make one that a terminal shows in full, and that crosses processes with a line for each."""
    with pytest.raises(ConfigurationErrors) as caught:
        parse_configuration(TEN_MISTAKES, FILE, {})
    error = caught.value
    assert (error.code, error.exit_code) == ("configuration", 2)
    assert error.message_primary == f'configuration file "{FILE}" has 11 errors'
    assert [line for line in error.lines() if line.startswith("ERROR:")] == [
        f"ERROR:  {each.message_primary}" for each in error.errors
    ]
    assert "HINT:  Set NOT_SET where the host is started." in error.lines()
    again = error_from_dict(error.to_dict())
    assert again.message_detail.splitlines() == [each.message_primary for each in error.errors]
    copy = pickle.loads(pickle.dumps(error))
    assert copy.lines() == error.lines()
    assert copy.path == FILE


def test_single_error_stands_for_itself() -> None:
    """A file with one mistake needs no headline."""
    with pytest.raises(ConfigurationErrors) as caught:
        parse_configuration("[host]\nlog = 5\n", FILE, {})
    assert caught.value.message_primary == f'{FILE}:2: [host] log: expected "files", "stderr" or "both", found the integer 5'
    assert caught.value.lines() == caught.value.errors[0].lines()


@pytest.mark.parametrize("text", [TEN_MISTAKES, '[database]\nurl = "x"\n', "[host\n", WORKER + WORKER])
def test_message_style(text: str) -> None:
    """Primaries are one line without a period; details and hints are sentences."""
    for error in errors(text):
        assert "\n" not in error.message_primary
        assert not error.message_primary.endswith(".")
        for sentence in (error.message_detail, error.message_hint):
            assert sentence == "" or (sentence[0] != " " and sentence.endswith("."))


def test_ten_thousand_workers() -> None:
    """T67: 10,000 workers load in about a second, and 10,000 errors do not take for ever."""
    entry = (
        '[[worker]]\nbgw_name = "worker {0}"\nbgw_library_name = "m"\nbgw_function_name = "f"\n'
        "bgw_restart_time = {1}\n[worker.bgw_main_arg]\nn = {0}\n"
    )
    started = time.process_time()
    configuration = load("".join(entry.format(number, 5) for number in range(10_000)))
    loaded = time.process_time()
    assert len(configuration.worker) == 10_000
    # About 0.5 s; the bound leaves room for a machine that is slower and busy.
    assert loaded - started < 2.5
    assert len(errors("".join(entry.format(number, -5) for number in range(10_000)))) == 10_000
    assert time.process_time() - loaded < 15


ODD_VALUES = [
    "true",
    "0",
    "-1",
    "1.5",
    "nan",
    "-inf",
    "0x" + "f" * 400,
    '""',
    '"\\u0000"',
    '"\\u202e"',
    '"é"',
    f'"{"x" * 5000}"',
    "2024-01-01",
    "2024-01-01T00:00:00Z",
    "03:04:05",
    "[]",
    "[[]]",
    "[{}]",
    '["", 1]',
    "{}",
    "{ env = 1 }",
    '{ env = "" }',
    '{ env = "a\\u0000b=" }',
    '{ env = "X", y = 1 }',
    '{ "\\u001b" = inf }',
]
HEADERS = {"[host]": HostSettings, "[database]": DatabaseSettings, "[[worker]]": WorkerTable, "[settings]": None, "": Configuration}


@pytest.mark.parametrize("header", HEADERS)
def test_whatever_a_key_has(header: str) -> None:
    """T64: no value of any key ends in anything but a configuration or errors that name the file, inert on a terminal."""
    table = HEADERS[header]
    refused: list[ConfigurationError] = []
    for key in (*(table.__struct_fields__ if table else ()), '"\\u001b[31m"', '""', "x" * 5000):
        for value in ODD_VALUES:
            try:
                load(f"{header}\n{key} = {value}\n")
            except ConfigurationErrors as error:
                refused += error.errors
    assert len(refused) >= 2 * len(ODD_VALUES)
    assert all(error.message_primary.startswith(FILE) for error in refused)
    assert all(line.isprintable() and len(line) < 1000 for error in refused for line in error.lines())


@given(st.text(max_size=60) | st.text(alphabet="[]{}=\".\n#'ahostworker1", max_size=60))
def test_whatever_a_text_is(text: str) -> None:
    """T64: no text ends in anything but a configuration or its errors."""
    with contextlib.suppress(ConfigurationErrors):
        load(text)
