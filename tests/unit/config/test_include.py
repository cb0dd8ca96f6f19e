"""_config/include.py, and what load.py makes of several files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bgworker._config.include import finds_itself
from bgworker._config.load import ConfigurationErrors, load_configuration, parse_configuration, read_configuration
from bgworker._config.merge import origin_of_entry

INCLUDE = 'include = ["conf.d/*.toml"]\n'


def worker(name: str) -> str:
    """Return a [[worker]]."""
    return f'[[worker]]\nbgw_name = "{name}"\nbgw_library_name = "l"\nbgw_function_name = "f"\n'


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory with an empty conf.d and a workers.toml that includes it."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "workers.toml").write_text(INCLUDE + worker("main"))
    return tmp_path


def errors_of(directory: Path) -> list[str]:
    """Return every error of the configuration, as lines, without the directory."""
    with pytest.raises(ConfigurationErrors) as caught:
        load_configuration(str(directory / "workers.toml"))
    return [line.replace(f"{directory}/", "") for error in caught.value.errors for line in error.lines()]


def test_files_in_their_order(directory: Path) -> None:
    """Sorted by name, after the including file; each worker knows where it is from."""
    (directory / "conf.d" / "20.toml").write_text(worker("c") + "[settings.x]\na = 1\n")
    (directory / "conf.d" / "10.toml").write_text(worker("a") + worker("b"))
    (directory / "conf.d" / "README").write_text("no TOML")
    configuration = load_configuration(str(directory / "workers.toml"))
    assert [table.bgw_name for table in configuration.worker] == ["main", "a", "b", "c"]
    assert configuration.settings == {"x": {"a": 1}}
    origins = [origin_of_entry(configuration, number) for number in (1, 2, 3, 4)]
    assert origins == ["workers.toml [[worker]] #1", "10.toml [[worker]] #1", "10.toml [[worker]] #2", "20.toml [[worker]] #1"]


def test_accepted_text_outlives_the_files(directory: Path) -> None:
    """One text stands for all of them, and says the same when they are gone."""
    path = str(directory / "workers.toml")
    (directory / "conf.d" / "10.toml").write_text("\ufeff" + worker("a"))
    before, text = load_configuration(path), read_configuration(path)
    (directory / "conf.d" / "10.toml").unlink()
    assert parse_configuration(text, path) == before


def test_each_file_is_taken_once(directory: Path) -> None:
    """Found by two patterns, or the including file itself; an absolute path; a pattern that finds nothing."""
    extra = directory / "extra.toml"
    extra.write_text(worker("a"))
    patterns = ["*.toml", "extra.toml", str(extra), "none/*.toml"]
    (directory / "workers.toml").write_text(f"include = {patterns}\n" + worker("main"))
    assert [table.bgw_name for table in load_configuration(str(directory / "workers.toml")).worker] == ["main", "a"]
    # check says that the file itself was left out.
    assert finds_itself(str(directory / "workers.toml"), patterns)
    assert not finds_itself(str(directory / "workers.toml"), patterns[1:])


def test_names_and_settings_stand_in_one_file(directory: Path) -> None:
    """The error names both places."""
    (directory / "conf.d" / "10.toml").write_text("\n[settings.x]\na = 1\n" + worker("main"))
    (directory / "conf.d" / "20.toml").write_text(worker("b") + "[settings.x]\nb = 1\n")
    name, settings = (line for line in errors_of(directory) if line.startswith("ERROR"))
    assert name.startswith('ERROR:  conf.d/10.toml:5: [[worker]] #1 "main" bgw_name: ')
    assert name.endswith("the name is already that of [[worker]] #1 in workers.toml on line 3")
    assert settings == "ERROR:  conf.d/20.toml:5: [settings.x]: the settings of this plugin are already in conf.d/10.toml on line 2"


def test_errors_of_all_files_at_once(directory: Path) -> None:
    """Each with its own file and line; a file may have only what belongs to workers."""
    (directory / "workers.toml").write_text(INCLUDE + "[host]\nx = 1\n")
    (directory / "conf.d" / "10.toml").write_text('[host]\nlog = "files"\n')
    (directory / "conf.d" / "20.toml").write_text("[[worker]]\nbgw_nam = 1\n")
    lines = errors_of(directory)
    assert [line.partition(": ")[0] for line in lines if line.startswith("ERROR")] == ["ERROR"] * 4
    text = "\n".join(lines)
    assert "workers.toml:3: [host]" in text
    assert 'conf.d/10.toml:1: top level: there is no key "host"' in text
    assert "host is a key of the file that includes this one." in text
    assert "conf.d/20.toml:2: [[worker]] #1" in text


def test_syntax_errors_of_included_files(directory: Path) -> None:
    """All of them, with line and column."""
    (directory / "conf.d" / "10.toml").write_text("x = \n")
    (directory / "conf.d" / "20.toml").write_text("\n[[worker]\n")
    text = "\n".join(errors_of(directory))
    assert "conf.d/10.toml:1:5: syntax error" in text
    assert "conf.d/20.toml:2:" in text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"conf.d/*.toml"', "expected an array of paths, found the string"),
        ("[1]", "expected paths, found the integer 1 as item 1"),
        ('["a.toml", ""]', "as item 2"),
        ('["absent.toml"]', 'file "absent.toml" does not exist'),
        ('["conf.d"]', '"conf.d" is not a file'),
        ('["workers.toml"]', '"workers.toml" is this file itself'),
        ('["conf.d/../workers.toml"]', "is this file itself"),
    ],
)
def test_wrong_values(directory: Path, value: str, expected: str) -> None:
    """What cannot be included is an error with the line of the key."""
    (directory / "workers.toml").write_text(f"\ninclude = {value}\n")
    (error, *_) = errors_of(directory)
    assert error.startswith("ERROR:  workers.toml:2: include: ")
    assert expected in error


def test_key_below_a_table(directory: Path) -> None:
    """The hint says where it belongs."""
    (directory / "workers.toml").write_text("[host]\n" + INCLUDE)
    assert "HINT:  include is a key of the file itself." in errors_of(directory)


def test_what_is_no_text(directory: Path) -> None:
    """A NUL or a wrong byte is found in the file that has it; a FIFO is not waited for."""
    broken = directory / "conf.d" / "10.toml"
    broken.write_bytes(b"a = 1\nb = \x00\n")
    assert errors_of(directory) == [
        "ERROR:  conf.d/10.toml:2:5: syntax error at line 2, column 5: the text has a NUL character",
    ]
    broken.write_bytes(b"\xff")
    assert "conf.d/10.toml:1:1: syntax error" in errors_of(directory)[0]
    broken.unlink()
    os.mkfifo(broken)
    assert '"conf.d/10.toml" is not a file' in errors_of(directory)[0]
