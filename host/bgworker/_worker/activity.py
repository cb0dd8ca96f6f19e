"""The worker's record in the activity table: what it says it is doing (C28).

The one writer of this record, by pwrite in the order that ``_shm.layout`` prescribes. It
never reads another record and never fails: an activity that cannot be shown is no reason
for a worker to stop.
"""

from __future__ import annotations

import os
import threading

from bgworker._shm.layout import SEQ, ActivityRecord, activity_offset, pack_activity


class Activity:
    """What ``report_activity()`` and the waits show in the status view.

    Args:
        fd: The activity table; -1 when nobody reads it.
        slotno: Whose record.
        generation: Readers compare it with the slot's, so a predecessor's words are not taken for ours.
    """

    def __init__(self, fd: int, slotno: int, generation: int) -> None:
        self._fd = fd
        self._offset = activity_offset(slotno)
        self._shown = ActivityRecord(generation, "", "", "")
        # The main thread waits while another one reports: two writers would make seq even in the middle of a record.
        self._lock = threading.RLock()

    @property
    def shown(self) -> ActivityRecord:
        """What readers see."""
        return self._shown

    def start(self) -> None:
        """Take the record over from whoever had the slot before."""
        with self._lock:
            self._write(self._shown)

    def report(self, state: str, text: str) -> None:
        """Show a state and a text."""
        with self._lock:
            self._show(self._shown._replace(state=state, text=text))

    def wait_event(self, name: str) -> None:
        """Show what the worker waits for; empty when it does not wait."""
        # Compared outside of the lock: nearly every wait names nothing, and then costs nothing.
        if name != self._shown.wait_event:
            with self._lock:
                self._show(self._shown._replace(wait_event=name))

    def _show(self, record: ActivityRecord) -> None:
        if record != self._shown:
            self._shown = record
            self._write(record)

    def _write(self, record: ActivityRecord) -> None:
        if self._fd < 0:
            return
        body = pack_activity(record)
        try:
            (seq,) = SEQ.unpack(os.pread(self._fd, SEQ.size, self._offset))
            # Odd already: a predecessor was killed while writing. Odd it stays until the record is whole.
            odd = seq | 1
            os.pwrite(self._fd, SEQ.pack(odd), self._offset)
            os.pwrite(self._fd, body, self._offset + SEQ.size)
            os.pwrite(self._fd, SEQ.pack((odd + 1) & 0xFFFF_FFFF_FFFF_FFFF), self._offset)
        except (OSError, ValueError):  # ValueError is struct's: a table shorter than the slot's record
            self._fd = -1
