"""The questions that tell a transaction pooler from a server and from a session pooler."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgworker._database.pooling import FIRST, SECOND, is_transaction_pooler


def verdict(key_pid: int, answer: Callable[[int], int]) -> tuple[bool, list[int]]:
    """Return the verdict, and who was asked."""
    asked: list[int] = []
    questions = is_transaction_pooler(key_pid)
    turn = next(questions)
    while True:
        asked.append(turn)
        try:
            turn = questions.send(answer(turn))
        except StopIteration as end:
            return bool(end.value), asked


def test_server_is_asked_once() -> None:
    """The key's pid is the session's: no pooler, and no second connection."""
    assert verdict(7, lambda _: 7) == (False, [FIRST])


def test_session_pooler_is_none() -> None:
    """Two connections that keep two sessions are behind a session pooler at most."""
    found, asked = verdict(99, lambda turn: 7 + turn)
    assert not found
    assert SECOND in asked


@pytest.mark.parametrize("sessions", [[7], [7, 8], [7, 8, 9], [7, 8, 8], [7, 8, 7, 7, 9]])
def test_transaction_pooler_is_found(sessions: list[int]) -> None:
    """Whether it gives out the session that was used last, or all of them in turn."""
    given_out = itertools.cycle(sessions)
    assert verdict(99, lambda _: next(given_out))[0]


@given(st.lists(st.integers(1, 3), min_size=16, max_size=16))
def test_verdict_is_right_whenever_sessions_are_seen_to_move(pids: list[int]) -> None:
    """A shared or changing session is proof; without one there is no accusation."""
    answers = iter(pids)
    given_to: dict[int, list[int]] = {FIRST: [], SECOND: []}

    def answer(turn: int) -> int:
        given_to[turn].append(next(answers))
        return given_to[turn][-1]

    found, _asked = verdict(99, answer)
    has_moved = any(len(set(each)) > 1 for each in given_to.values())
    has_shared = bool(set(given_to[FIRST]) & set(given_to[SECOND]))
    assert found == (has_moved or has_shared)
