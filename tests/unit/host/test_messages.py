"""What helpers say is looked at before it is believed."""

from __future__ import annotations

from typing import Any

import pytest

from bgworker._host.messages import problem_of

READY = {
    "type": "ready", "config_text": "", "has_launcher_hooks": False, "workers": [{"worker": {}}], "rejected": [], "warnings": ["w"],
    "settings": {}, "fixed": {}, "python_path": ["/x"], "preloaded": [], "plugins": [],
    "broken_plugins": [{"name": "n", "error": "e"}],
}  # fmt: skip


@pytest.mark.parametrize(
    "message",
    [
        READY,
        {"type": "born", "birth": 1, "pid": 2},
        {"type": "postgres", "pid": None},
        {
            "type": "phase",
            "phase": "starting",
            "detail": "",
            "url": None,
            "conninfo": None,
            "direct_conninfo": "",
            "is_pooled": False,
        },
        {"type": "stopped"},
        {"type": "database_opened", "id": 1, "error": "", "sqlstate": "", "detail": "", "hint": ""},
    ],
    ids=lambda message: str(message["type"]),
)
def test_proper_messages(message: dict[str, Any]) -> None:
    """What our helpers say passes."""
    assert problem_of(message) is None


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"type": []},
        {"type": "unheard of"},
        {"type": "born", "birth": True, "pid": 2},
        {"type": "born", "birth": 1, "pid": None},
        {"type": "database_opened", "id": "1", "error": "", "sqlstate": "", "detail": "", "hint": ""},
        {**READY, "workers": [{}]},
        {**READY, "workers": [[]]},
        {**READY, "python_path": [1]},
        {**READY, "broken_plugins": [{"name": "n"}]},
        {**READY, "has_launcher_hooks": 1},
    ],
    ids=str,
)
def test_improper_messages(message: dict[str, Any]) -> None:
    """What lacks a field, or has another type in it, is named as a problem."""
    assert problem_of(message)


@pytest.mark.parametrize("pid", [1, 0, -1, -4711])
def test_pids_that_mean_more_than_a_process(pid: int) -> None:
    """A pid that kill(2) takes for a group, or for process 1, is none that a helper may name."""
    assert problem_of({"type": "born", "birth": 1, "pid": pid})
    assert problem_of({"type": "postgres", "pid": pid})
