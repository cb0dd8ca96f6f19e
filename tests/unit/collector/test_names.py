"""File names out of worker names."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgworker._collector.names import file_name, label, next_predecessor, predecessors

ANY_NAME = st.text(min_size=1, max_size=95)


@pytest.mark.parametrize("name", ["heartbeat", "worker_spi", "order-drain", "a.b", "A1", "x.log", "job-2f3a9c1e", "0" * 95])
def test_safe_name_is_kept(name: str) -> None:
    """A name that is safe as it stands is its own label."""
    assert label(name) == name
    assert file_name(name) == name + ".log"


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "-n", "a b", "a/b", "../../etc/passwd", "é", "a\0b", "\ud800", "x" * 96, "host", "a\n"]
)
def test_unsafe_name_gets_a_slug_and_a_hash(name: str) -> None:
    """A name that is not safe becomes a short slug with a hash, and nothing that leaves the directory."""
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}-[0-9a-f]{10}", label(name))


def test_similar_names_differ() -> None:
    """Names that have the same slug do not share a file."""
    names = ["a b", "a/b", "a_b", "a  b", "a\tb", " a b", "a:b"]
    assert len({label(name) for name in names}) == len(names)


def test_label_of_another_is_no_label() -> None:
    """A worker cannot take another one's file by being called what its label is."""
    assert label(label("a b")) != label("a b")
    assert label(label(label("a b"))) not in (label("a b"), label(label("a b")))


@given(ANY_NAME, ANY_NAME)
def test_distinct_names_never_collide(one: str, other: str) -> None:
    """Whatever two names are, their labels differ when they do, and are safe file names."""
    assert (label(one) == label(other)) == (one == other)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,94}", label(one))


def test_predecessors_are_in_order() -> None:
    """Of a directory's names only the file's own predecessors count, oldest first, a plain one before its compressed copy."""
    ours = ["20261121T090001.123.gz", "20261121T090001.122", "20261121T090001.122.gz"]
    others = ["1", "20261121T090001.123.gz.tmp", "20269921T090001.123", "00001121T090001.123"]
    names = ["w.log", "vw.log.20261121T090001.123", *(f"w.log.{end}" for end in ours + others)]
    found = predecessors("w.log", names)
    assert [each.name for each in found] == ["w.log.20261121T090001.122", "w.log.20261121T090001.123.gz"]
    assert [each.is_compressed for each in found] == [False, True]


@pytest.mark.parametrize("newest", ["", "20261121T090001.122", "20261121T090001.123", "20261231T235959.999", "29991131T235959.999"])
def test_next_predecessor_is_the_newest(newest: str) -> None:
    """A file that is put aside comes after all others, whatever the clock says."""
    existing = predecessors("f", [f"f.{newest}"])
    made = next_predecessor("f", 1_795_251_601.1239, existing)
    assert made.stamp > newest
    assert predecessors("f", [made.name]) in ([made], [])
    if newest < "20261121T090001.123":
        assert made.name == "f.20261121T090001.123"
