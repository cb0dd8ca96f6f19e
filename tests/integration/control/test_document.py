"""The examples of docs/protocol.md, run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.integration.control.fake_host import FakeHost

from bgworker._shm.layout import SlotRecord

DOCUMENT = Path(__file__).parents[3] / "docs" / "protocol.md"


def test_client_in_20_lines(host: FakeHost, tmp_path: Path) -> None:
    """C34: the documented client finds a worker and reads its pid from the slot table as documented."""
    program = re.search(r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    assert program is not None
    host.answers["find"] = lambda params: {"handle": "3.2", "bgw_name": params["name"], "pid": 4711}
    host.slots.write(3, SlotRecord(2, 4711, 1))
    command = [sys.executable, "-c", program[1]]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True)
    assert result.stdout == "(4, 2, 4711, 1)\n"
