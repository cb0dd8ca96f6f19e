"""The format of an ``env_file``, and what is said of a wrong one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bgworker._process.env_file import MAX_BYTES, read
from bgworker.errors import HostError


def test_lines(tmp_path: Path) -> None:
    """Comments and empty lines are nothing; quotation marks around a value are taken off; nothing is expanded."""
    path = tmp_path / "x.env"
    path.write_bytes(
        b"\xef\xbb\xbf# comment\n\nA=1\nexport B = two words \nC='$A'\r\nD=\"x=y # z\"\nE=\n  F=a'b\nA=2\n"
        + 'G="größe"'.encode()  # without a line end
    )
    assert read(str(path)) == {"A": "2", "B": "two words", "C": "$A", "D": "x=y # z", "E": "", "F": "a'b", "G": "größe"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"A=1\nhidden\n", "line 2: expected NAME=value"),
        (b"=hidden", "line 1: expected NAME=value"),
        (b"A B=hidden", "line 1: expected NAME=value"),
        (b"\n\nA='hidden", "line 3: a quotation mark is not closed on it"),
        (b'A="', "line 1: a quotation mark is not closed on it"),
        (b"A=hidden\0", "line 1: it has a zero byte"),
        (b"A=1\nB=hidden\xff", "line 2: it is not valid UTF-8"),
    ],
)
def test_wrong_line(tmp_path: Path, text: bytes, problem: str) -> None:
    """A wrong line is named by file and number, and nothing of it is shown."""
    path = tmp_path / "x.env"
    path.write_bytes(text)
    with pytest.raises(HostError) as refusal:
        read(str(path))
    assert refusal.value.message_primary == f'env_file "{path}" is wrong at {problem}'
    assert "hidden" not in "".join(refusal.value.lines()).replace(str(path), "")


def test_what_is_no_file(tmp_path: Path) -> None:
    """What is missing, no file, endless or too long is an error at once."""
    fifo, long = tmp_path / "fifo", tmp_path / "long"
    os.mkfifo(fifo)
    with long.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    for path, reason in (
        (tmp_path / "none", "No such file or directory"),
        (tmp_path, "it is no regular file"),
        (fifo, "it is no regular file"),
        (Path("/dev/zero"), "it is no regular file"),
        (long, f"it is longer than {MAX_BYTES} bytes"),
    ):
        with pytest.raises(HostError) as refusal:
            read(str(path))
        assert refusal.value.message_primary == f'could not read env_file "{path}": {reason}'
