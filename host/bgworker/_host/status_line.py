"""The reply to a status request, put together from parts that are encoded once per change.

What stands in each part says ``status``. Imported by the composition root alone.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from bgworker._core.slots import Slot
from bgworker._core.states import SlotState
from bgworker._host.status import slot_view, timestamp
from bgworker._version import __version__

if TYPE_CHECKING:
    from bgworker._host.host import Host


class StatusLine:
    """Keeps each slot's part until the slot changes.

    Args:
        host: Whose status it is.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._parts: dict[int, str] = {}

    def changed(self, slotno: int) -> None:
        """Take note that a slot's part is not what it was."""
        self._parts.pop(slotno, None)

    def encode(self, request_id: Any) -> bytes:
        """Return the whole reply, newline included."""
        host = self._host
        about = {
            "pid": os.getpid(),
            "state": host.state,
            "started_at": timestamp(host.started_at),
            "data_directory": host.data_directory,
            "max_worker_processes": len(host.machine.slots),
            "crash_count": host.crash_count,
            "version": __version__,
            "database": None if host.database is None else host.database.view(),
        }
        slots = ",".join(self._part(slot) for slot in host.machine.slots if slot.state is not SlotState.FREE)
        rest = {"finished": host.finished.view(), "broken_plugins": host.broken_plugins, "rejected": host.rejected}
        text = (
            f'{{"id":{json.dumps(request_id)},"result":{{"format":1,"host":{json.dumps(about)},'
            f'"slots":[{slots}],{json.dumps(rest)[1:]}}}\n'
        )
        return text.encode("utf-8", "replace")

    def _part(self, slot: Slot) -> str:
        part = self._parts.get(slot.slotno)
        if part is None:
            part = self._parts[slot.slotno] = json.dumps(slot_view(slot, self._code_of(slot)), ensure_ascii=False)
        return part

    def _code_of(self, slot: Slot) -> dict[str, str]:
        process = None if slot.pid is None else self._host.births.by_pid.get(slot.pid)
        return {} if process is None else process.code
