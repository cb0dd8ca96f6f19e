"""docs/shared-memory.md: its example, taken from the page, does what the page says."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bgworker.testing import RunningHost

PAGE = (Path(__file__).parents[2] / "docs" / "shared-memory.md").read_text()


def block(language: str, title: str) -> str:
    """Return the block of the page that begins with this comment."""
    found = re.search(rf"^```{language}\n# {re.escape(title)}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, f"the page has no {title}"
    return found[1]


def test_example_of_the_page(bgworker_host: Callable[..., RunningHost]) -> None:
    """C31: four workers count in one array; one is killed, and all of them begin again with new memory."""
    host = bgworker_host(block("toml", "workers.toml"), counters=block("python", "counters.py"))

    def counting(memory: int) -> dict[str, Any] | None:
        slots = {slot["bgw_name"]: slot for slot in host.status()["slots"]}
        texts = [slot["activity"]["text"].split() for slot in slots.values()]
        # More events than one worker alone has had the time for, and everybody sees them.
        are_there = len(texts) == 4 and all(text and text[-1] == str(memory) and int(text[0]) >= 12 for text in texts)
        return slots if are_there else None

    before = host.wait_until(lambda: counting(1), "all four count together")
    os.kill(before["counter 0"]["pid"], signal.SIGKILL)
    after = host.wait_until(lambda: counting(2), "all four count together again")
    assert not {slot["pid"] for slot in after.values()} & {slot["pid"] for slot in before.values()}
    log = host.log()
    for line in re.findall(r"^(?:WARNING|DETAIL):  (.*)$", PAGE, re.MULTILINE):
        assert line.replace("PID 4711", f"PID {before['counter 0']['pid']}") in log
