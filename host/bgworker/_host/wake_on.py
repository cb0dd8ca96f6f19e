"""Who is woken by which notification: ``wake_on``, by database and channel (C27).

A worker's channels are listened for in the database that it is connected to; until it has said
which one that is, in the configured one, whose name here is the empty one. What the database
process hears is handed to the workers that asked for it. A worker that does not read its
channel costs the host a bounded queue: what comes on top becomes one note per channel that
something may have been missed, sent once the queue is empty.

Decides nothing about slots and talks to no database. Imported by the composition root alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from bgworker._core.slots import Slot
from bgworker._host.births import WorkerProcess
from bgworker._spec import BackgroundWorker

#: Unsent bytes of one worker above which notifications are no longer queued for it one by one.
MAX_QUEUED_BYTES: Final = 262_144
#: The longest name of a database that is believed, in characters; PostgreSQL's are 63 bytes.
_MAX_NAME: Final = 255

#: Database and channel.
Topic = tuple[str, str]


class WakeUps:
    """The channels that are wanted, and the processes behind them.

    Args:
        slots: The machine's.
        processes: Every worker process by pid, as births keep them.
    """

    def __init__(self, slots: list[Slot], processes: Mapping[int, WorkerProcess]) -> None:
        self._slots = slots
        self._processes = processes
        #: Where notifications are heard now; what is in here and wanted no more is taken out by ``wanted``.
        self._effective: set[Topic] = set()
        #: Built when it is needed, dropped when a worker comes, goes or connects.
        self._routes: dict[Topic, list[WorkerProcess]] | None = None

    def changed(self) -> None:
        """Take note that a worker has come, gone or connected."""
        self._routes = None

    def connected(self, process: WorkerProcess, database: object) -> bool:
        """Take a worker's word for the database that it is connected to; return whether it has channels there."""
        if not isinstance(database, str) or len(database) > _MAX_NAME or "\0" in database:
            return False
        process.database = database
        self._routes = None
        worker = self._worker_of(process)
        if worker is None or not worker.wake_on:
            return False
        # Where nothing is heard yet, the note follows as soon as something is.
        self._note_gap(process, [channel for channel in worker.wake_on if (database, channel) in self._effective])
        return True

    def wanted(self) -> dict[str, list[str]]:
        """Return the channels that registered workers wait for, by database."""
        found: dict[str, set[str]] = {}
        databases = {process.life[:2]: process.database for process in self._processes.values()}
        for slot in self._slots:
            if slot.worker is not None and slot.worker.wake_on:
                database = databases.get((slot.slotno, slot.generation), "")
                found.setdefault(database, set()).update(slot.worker.wake_on)
        self._effective &= {(database, channel) for database, channels in found.items() for channel in channels}
        return {database: sorted(channels) for database, channels in sorted(found.items())}

    def go_on(self) -> None:
        """After the host has executed itself anew: those who have missed something are told as soon as they read."""
        for process in self._processes.values():
            if process.missed and process.connection is not None:
                if process.connection.is_flushed:
                    _tell_missed(process)
                else:
                    process.connection.when_flushed = lambda process=process: _tell_missed(process)

    # -- what the database process says --------------------------------------------------------------------------------------

    def notified(self, database: str, channel: str, payload: str) -> None:
        """Hand a notification to every worker that asked for it."""
        for process in self._route().get((database, channel), ()):
            if process.missed:
                process.missed.add(channel)
            elif process.connection is not None and process.connection.unsent_bytes > MAX_QUEUED_BYTES:
                process.missed.add(channel)
                process.connection.when_flushed = lambda process=process: _tell_missed(process)
            elif process.connection is not None:
                process.connection.send({"type": "notify", "channel": channel, "payload": payload})

    def heard_again(self, database: str, channels: Iterable[str]) -> None:
        """Listening has begun, or begun again: whoever waits for these channels may have missed something."""
        channels = set(channels)
        self._effective |= {(database, channel) for channel in channels}
        for process in self._processes.values():
            worker = self._worker_of(process)
            if worker is not None and process.database == database:
                self._note_gap(process, [channel for channel in worker.wake_on if channel in channels])

    def deaf(self, database: str | None = None) -> None:
        """Nothing is heard in a database, or in any, until ``heard_again`` says so."""
        self._effective = {topic for topic in self._effective if database is not None and topic[0] != database}

    # -- inside --------------------------------------------------------------------------------------------------------------

    def _worker_of(self, process: WorkerProcess) -> BackgroundWorker | None:
        slot = self._slots[process.life.slotno]
        return slot.worker if slot.generation == process.life.generation else None

    def _route(self) -> dict[Topic, list[WorkerProcess]]:
        if self._routes is None:
            self._routes = {}
            for process in self._processes.values():
                worker = self._worker_of(process)
                for channel in worker.wake_on if worker is not None else ():
                    self._routes.setdefault((process.database, channel), []).append(process)
        return self._routes

    @staticmethod
    def _note_gap(process: WorkerProcess, channels: list[str]) -> None:
        if not channels or process.connection is None:
            return
        if process.missed:
            process.missed.update(channels)
        else:
            process.connection.send({"type": "gap", "channels": sorted(channels)})


def _tell_missed(process: WorkerProcess) -> None:
    if process.missed and process.connection is not None:
        channels, process.missed = sorted(process.missed), set()
        process.connection.send({"type": "gap", "channels": channels})
