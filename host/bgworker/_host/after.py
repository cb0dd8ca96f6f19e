"""Whom a dynamic worker comes after: checked against everybody whom the host knows.

Static workers were checked together, by the loader. Imported by ``requests``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bgworker import _after
from bgworker._config.after import circle_error, unknown_name, waits_for_ever
from bgworker._spec import BackgroundWorker
from bgworker.errors import RegistrationError

if TYPE_CHECKING:
    from bgworker._host.host import Host


def check_after(host: Host, worker: BackgroundWorker) -> None:
    """Refuse a worker that comes after nobody, or after one that comes after it.

    Raises:
        RegistrationError: With the names.
    """
    if not worker.after:
        return
    graph: dict[str, set[str]] = {name: _after.names(static.worker.after) for name, static in host.static.items()}
    for slot in host.machine.slots:
        if slot.worker is not None:
            graph.setdefault(slot.name, set()).update(_after.names(slot.worker.after))
    for worker_ in [static.worker for static in host.static.values()]:
        if worker_.instance:
            graph.setdefault(worker_.instance_of, set()).add(worker_.bgw_name)
    for other in sorted(_after.names(worker.after)):
        # One that is over counts, for it may have ended with success. Nobody near is named: not everybody may know who is there.
        if other not in graph and not host.finished.has(other) and other != worker.bgw_name:
            raise RegistrationError(*unknown_name(worker.bgw_name, other, "It is not registered, and has not ended lately."))
    graph.setdefault(worker.bgw_name, set()).update(_after.names(worker.after))
    if cycle := _after.find_cycle(graph):
        raise RegistrationError(*circle_error(cycle, "None of them could ever be started."))
    bearers: dict[str, list[BackgroundWorker]] = {}
    for known in (slot.worker for slot in host.machine.slots if slot.worker is not None):
        for bearer in filter(None, (known.bgw_name, known.instance_of)):
            bearers.setdefault(bearer, []).append(known)
    for warning in waits_for_ever(worker, bearers):
        host.log("WARNING", warning.rstrip("."))
