"""The plain format, written and read."""

from __future__ import annotations

from bgworker._collector.plain import STAMP_LENGTH, Head, Identity, PlainFormat, parse_head

AT = 1_795_251_601.1239  # 2026-11-21 09:00:01.123 UTC
FORMAT = PlainFormat()


def test_every_line_of_a_block_is_a_record() -> None:
    """Each line of a worker has time, slot, generation, pid and name."""
    tag = FORMAT.worker_tag(Identity(3, 2, 4711, "order drain"))
    assert FORMAT.worker_lines(tag, AT, b"one\n\nWARNING:  two\n") == (
        b"2026-11-21 09:00:01.123 UTC [3.2 4711] order drain: one\n"
        b"2026-11-21 09:00:01.123 UTC [3.2 4711] order drain: \n"
        b"2026-11-21 09:00:01.123 UTC [3.2 4711] order drain: WARNING:  two\n"
    )


def test_name_cannot_forge_a_line() -> None:
    """A name with control characters is escaped, though registration refuses it."""
    assert FORMAT.worker_tag(Identity(0, 1, 0, "a\nb\x1b")) == b" UTC [0.1 -] a\\x0ab\\x1b: "


def test_loader_has_no_slot() -> None:
    """What is no worker has no slot in its lines."""
    line = FORMAT.worker_lines(FORMAT.worker_tag(Identity(-1, 0, 0, "loader")), AT, b"text\n").decode()
    assert line == "2026-11-21 09:00:01.123 UTC [-] loader: text\n"
    assert parse_head(line) == Head("2026-11-21 09:00:01.123", None, None, line.index("loader"))


def test_facts_are_one_record_per_line() -> None:
    """A fact has its level, and a detail of several lines becomes several records of that level."""
    facts = [("WARNING", "broken\x1b"), ("DETAIL", "Traceback:\n  File x\nKeyError"), ("no level", "")]
    assert FORMAT.facts(9, AT, facts).decode().splitlines() == [
        "2026-11-21 09:00:01.123 UTC [9] WARNING:  broken\\x1b",
        "2026-11-21 09:00:01.123 UTC [9] DETAIL:  Traceback:",
        "2026-11-21 09:00:01.123 UTC [9] DETAIL:    File x",
        "2026-11-21 09:00:01.123 UTC [9] DETAIL:  KeyError",
        "2026-11-21 09:00:01.123 UTC [9] LOG:  ",
    ]


def test_lines_can_be_read_again() -> None:
    """The reading half finds in a line what the writing half put there."""
    line = FORMAT.worker_lines(FORMAT.worker_tag(Identity(12, 34, 5, "w")), AT, b"text\n").decode()
    head = parse_head(line)
    assert head == Head("2026-11-21 09:00:01.123", 12, 34, line.index("w: text"))
    assert len(head.stamp) == STAMP_LENGTH
    fact = FORMAT.facts(9, AT, [("LOG", "x")]).decode()
    assert parse_head(fact) == Head("2026-11-21 09:00:01.123", None, None, fact.index("LOG:"))
    assert parse_head("torn remains of a line") is None
    assert parse_head("2026-11-21 09:00:01.123 UTC") is None
