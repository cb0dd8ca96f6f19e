"""How many descriptors a host needs for itself, by its configuration.

Pure. The host takes as many when it starts, and is refused by a system that allows fewer; the unit file that
``bgworker systemd-unit`` prints allows as many. Both have to mean the same number.
"""

from __future__ import annotations

from typing import Final

from bgworker._config.model import HostSettings

#: Births that the loader is asked for at a time; it makes one after the other.
MAX_IN_FLIGHT: Final = 64
#: Of a worker: its channel, the read ends of its two log pipes, and the process that its ``bgw_notify_pid`` names.
_EACH: Final = 4
#: More of one that is being born: the other ends of those.
_BEING_BORN: Final = 3
#: Clients (``_control.server`` has a limit), helpers, tables, locks, and what a moment needs.
_OWN: Final = 400


def needed(settings: HostSettings) -> int:
    """Return how many descriptors the host needs when every slot is taken and every spare is there."""
    slots = settings.max_worker_processes
    processes = slots + min(settings.spare_workers, slots)
    return _EACH * processes + _BEING_BORN * min(processes, MAX_IN_FLIGHT) + _OWN
