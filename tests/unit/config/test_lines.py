"""Line numbers of keys and tables: right, or none."""

from __future__ import annotations

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from bgworker._config.lines import Path, SourceLines

TEXT = '''\
# [host]
top = 1

[host]   # a comment
log = "both"
python_path = [
  "a", # ]
  "[b]",
]
"quoted key" = 1
'literal' = 1
"esc\\u0061ped" = 1
a.b . c = { x = 1 }
[[worker]]
bgw_name = "one"
bgw_extra = """
[[worker]]
bgw_name = "no"
\\""" """
bgw_type = \'\'\'
bgw_name = 1\'\'\'\'
  [worker.bgw_main_arg]
  every = """1""""
[[worker]]
bgw_name = "two"
[worker.bgw_main_arg.deep]
[[worker.bgw_main_arg.list]]
x = 1
[[worker.bgw_main_arg.list]]
x = 2
[settings.worker_spi]
naptime = 10 # seconds
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 2),
        (("host",), 4),
        (("host", "log"), 5),
        (("host", "python_path"), 6),
        (("host", "quoted key"), 10),
        (("host", "literal"), 11),
        (("host", "a", "b", "c"), 13),
        (("worker", 0), 14),
        (("worker", 0, "bgw_name"), 15),
        (("worker", 0, "bgw_extra"), 16),
        (("worker", 0, "bgw_type"), 20),
        (("worker", 0, "bgw_main_arg"), 22),
        (("worker", 0, "bgw_main_arg", "every"), 23),
        (("worker", 1), 24),
        (("worker", 1, "bgw_name"), 25),
        (("worker", 1, "bgw_main_arg", "deep"), 26),
        (("worker", 1, "bgw_main_arg", "list", 1, "x"), 30),
        (("settings", "worker_spi", "naptime"), 32),
        (("host", "escaped"), None),
        (("host", "a"), None),
        (("host", "a", "b", "c", "x"), None),
        (("worker",), None),
        (("worker", 2), None),
        (("settings",), None),
    ],
)
def test_lines(path: Path, line: int | None) -> None:
    """Headers and keys have their line; what stands inside another value, or is written with escapes, has none."""
    tomli.loads(TEXT)
    assert SourceLines(TEXT).of(path) == line


def test_windows_line_ends() -> None:
    """A carriage return before the newline changes no line number."""
    assert SourceLines(TEXT.replace("\n", "\r\n")).of(("settings", "worker_spi", "naptime")) == 32


def test_repeated_key() -> None:
    """A key that is there twice is known with both lines, if it is where the text ends."""
    repeated = SourceLines("[host]\nlog = 1\n\nlog = 2\n").repeated
    assert repeated is not None
    assert repeated == (("host", "log"), 2, 4, False)
    assert SourceLines("[host]\nlog = 1\n[x]\nlog = 2\n").repeated is None


@pytest.mark.parametrize("text", ["[", "[a", "a", "a =", 'a = "', "a = [1", "= 1", "[[a]\nb = 1", "a.\nb = 1", '"""'])
def test_broken_text(text: str) -> None:
    """Text that is no TOML ends the walk and gives no line behind the mistake."""
    lines = SourceLines("[ok]\n" + text)
    assert lines.of(("ok",)) == 1
    assert lines.of(("b",)) is None


_KEYS = st.sampled_from(["a", "b", "c-1", '"q.r"', "'l [x]'"])
_SCALARS = st.sampled_from(
    ['"x"', '"[a]"', "1", "'#'", '"""\nb = 1\n[a]\n"""', "'''\n[[a]]\n''''", '"\\" [a]"', "[\n1, # ]\n2\n]", "{ a = [1] }"]
)
_STATEMENTS = st.one_of(
    st.builds("{0} = {1}".format, _KEYS, _SCALARS),
    st.builds("{0}.{1} = {2} # = [".format, _KEYS, _KEYS, _SCALARS),
    st.builds("[{0}]".format, _KEYS),
    st.builds("[[{0}]]".format, _KEYS),
    st.builds("[ {0} . {1} ]".format, _KEYS, _KEYS),
    st.just("# [a]"),
    st.just(""),
)


@given(st.lists(_STATEMENTS, max_size=12))
def test_a_line_is_right_or_not_there(statements: list[str]) -> None:
    """Whatever tomli accepts: cutting the text before the line of a key or table, the key or table is not there yet."""
    text = "\n".join(statements)
    try:
        document = tomli.loads(text)
    except tomli.TOMLDecodeError:
        return
    lines = SourceLines(text)
    for path in _paths(document):
        line = lines.of(path)
        if line is None:
            continue
        before = "\n".join(text.split("\n")[: line - 1])
        through_the_value = _shortest_that_parses(text, line)
        assert path in set(_paths(tomli.loads(through_the_value)))
        # A sub-table may make its parent before the parent's own header comes.
        own_header = text.split("\n")[line - 1].lstrip().startswith("[")
        assert own_header or path not in set(_paths(tomli.loads(before)))


def _shortest_that_parses(text: str, line: int) -> str:
    pieces = text.split("\n")
    for end in range(line, len(pieces) + 1):
        try:
            tomli.loads("\n".join(pieces[:end]))
        except tomli.TOMLDecodeError:
            continue
        return "\n".join(pieces[:end])
    raise AssertionError("the whole text parses")


def _paths(value: object, path: Path = ()) -> list[Path]:
    found: list[Path] = [path] if path else []
    if isinstance(value, dict):
        for key, item in value.items():
            found += _paths(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            found += _paths(item, (*path, number))
    return found
