"""Records of logging on their way into a log file, in both formats."""

from __future__ import annotations

import json

import pytest

from bgworker._collector.json_lines import JsonFormat
from bgworker._collector.lines import LINE_LIMIT
from bgworker._collector.plain import Identity, PlainFormat
from bgworker._collector.records import as_text, clean_lines
from bgworker._collector.tail import last_words
from bgworker._log_record import MARK, MAX_BYTES, LogRecord, decode, encode
from bgworker._logs.lines import as_json, as_plain, parse

AT = 1_795_251_601.1239  # 2026-11-21 09:00:01.123 UTC
WHO = Identity(3, 2, 4711, "order drain")
RECORD = LogRecord("WARNING", "shop.queue", "queue is long", "Traceback (most recent call last):\n  File x\nKeyError: 'a'")


def json_lines(block: bytes, stream: str = "stderr") -> list[dict[str, object]]:
    made = JsonFormat()
    return [json.loads(line) for line in made.worker_lines(made.worker_tag(WHO), AT, clean_lines(block), stream).splitlines()]


def test_record_keeps_level_and_logger() -> None:
    """A record is text of several lines in the plain format, and one object with its fields in JSON."""
    block = b"before\n" + encode(RECORD) + b"after\n"
    plain = PlainFormat()
    assert [line.partition(b"drain: ")[2] for line in plain.worker_lines(b" drain: ", AT, clean_lines(block)).splitlines()] == [
        b"before",
        b"WARNING:  shop.queue: queue is long",
        b"Traceback (most recent call last):",
        b"  File x",
        b"KeyError: 'a'",
        b"after",
    ]
    first, record, last = json_lines(block)
    assert first == {
        "at": "2026-11-21T09:00:01.123Z", "slot": 3, "generation": 2, "pid": 4711, "name": "order drain",
        "stream": "stderr", "message": "before",
    }  # fmt: skip
    assert [record[key] for key in ("level", "logger", "message", "exc")] == list(RECORD)
    assert last["message"] == "after"


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (b"FATAL:  terminating", {"level": "FATAL", "message": "terminating"}),
        (b"ERROR:shop.queue:lost: it", {"level": "ERROR", "logger": "shop.queue", "message": "lost: it"}),
        (b"ERROR: one blank", {"message": "ERROR: one blank"}),
        (b"http://x", {"message": "http://x"}),
        (b'{"my": "own"}', {"message": '{"my": "own"}'}),
    ],
)
def test_levels_of_text(line: bytes, fields: dict[str, str]) -> None:
    """Lines of our runtime, and of logging.basicConfig(), have their level and logger; other text stays text."""
    (found,) = json_lines(line + b"\n")
    assert {key: found[key] for key in ("level", "logger", "message") if key in found} == fields


@pytest.mark.parametrize(
    "line", [b"", b"x", b"[]", b'["a"]', b'["a","b","c",4]', b'{"a":1}', b"[" * 10_000, b'["a","b","c"', b"\xff", b'"\\ud800"']
)
def test_what_is_no_record_is_text(line: bytes) -> None:
    """T61: a line with the mark that cannot be read is text, its mark escaped."""
    assert decode(MARK + line) is None
    cleaned = clean_lines(MARK + line + b"\n")
    assert MARK not in cleaned
    assert cleaned.startswith(b"\\x1e")


def test_text_of_a_record_is_harmless() -> None:
    """T61: nothing in a record reaches a terminal, forges a line or breaks the object, lone surrogates and DEL included."""
    evil = "\x1b[2J\u202e\x7f\ud800\r\nnext\x1e"
    cleaned = clean_lines(encode(LogRecord(evil, evil, evil, evil)))
    text = as_text(cleaned).decode()
    assert [character for character in text if not character.isprintable() and character != "\n"] == []
    assert text.count("\n") == 4  # the message's own line break and the traceback's, and the ends of both
    (found,) = json_lines(encode(LogRecord(evil, evil, evil, evil)))
    assert found["message"] == "\\x1b[2J\\u202e\\x7f\\ud800\nnext\\x1e"


@pytest.mark.parametrize("character", ["x", "\x1b", "é", "\U0001f600"])
def test_record_is_never_cut_by_the_collector(character: str) -> None:
    """A record of any length fits into one line: the message loses its end, the traceback its beginning."""
    assert MAX_BYTES < LINE_LIMIT
    line = encode(LogRecord("INFO", "l" * 5000, "m" + character * 100_000, character * 100_000 + "end"))
    assert len(line) <= MAX_BYTES
    record = decode(line[:-1])
    assert record is not None
    assert record.message.startswith("m")
    assert record.exc.endswith("end")


def test_last_words_have_records_as_text() -> None:
    """History keeps the last lines as people read them, one whose beginning is lost included."""
    words = last_words(b'"torn"]\n' + encode(RECORD) + b"bye")
    assert words.lines == ('"torn"]', "WARNING:  shop.queue: queue is long", *RECORD.exc.split("\n"), "bye")
    assert words.traceback == RECORD.exc
    assert words.reason == "KeyError: 'a'"


def test_facts_are_one_object() -> None:
    """A fact of the host, its detail and its hint are one object."""
    made = JsonFormat()
    line = made.facts(9, AT, [("WARNING", "broken"), ("DETAIL", "a\nb"), ("HINT", "mend\x1b")])
    assert json.loads(line) == {
        "at": "2026-11-21T09:00:01.123Z", "pid": 9, "level": "WARNING", "message": "broken", "detail": "a\nb", "hint": "mend\x1b",
    }  # fmt: skip
    assert b"\x1b" not in line


def test_either_format_becomes_the_other() -> None:
    """The reading side gives out each line as asked for, whatever the file holds."""
    plain, made = PlainFormat(), JsonFormat()
    block = clean_lines(b"one\n" + encode(RECORD))
    of_plain = plain.worker_lines(plain.worker_tag(WHO), AT, block).decode().splitlines()
    of_json = made.worker_lines(made.worker_tag(WHO), AT, block).decode().splitlines()
    assert "\n".join(map(as_plain, of_json)).split("\n") == of_plain
    assert [as_plain(line) for line in of_plain] == of_plain
    assert [as_json(line) for line in of_json] == of_json
    assert json.loads(as_json(of_plain[1])) == {
        "at": "2026-11-21T09:00:01.123Z", "slot": 3, "generation": 2, "pid": 4711, "name": "order drain",
        "level": "WARNING", "message": "shop.queue: queue is long",
    }  # fmt: skip
    facts = [("LOG", "x"), ("DETAIL", "a\nb")]
    assert as_plain(made.facts(9, AT, facts).decode().strip()).split("\n") == plain.facts(9, AT, facts).decode().splitlines()
    fact = plain.facts(9, AT, facts[:1]).decode().strip()
    assert json.loads(as_json(fact)) == {"at": "2026-11-21T09:00:01.123Z", "pid": 9, "level": "LOG", "message": "x"}
    assert json.loads(as_json("torn")) == {"message": "torn"}
    line = parse(of_json[0])
    assert line is not None
    assert (line.stamp, line.slot, line.generation, line.is_of("order drain")) == ("2026-11-21 09:00:01.123", 3, 2, True)
    assert parse('{"at":"2026-11-21T09:00:01.123Z","pid"') is None
