"""Static workers put into effect: at the start all of them, at a reload the difference, as ``plan`` has decided.

What runs and did not change is never touched. What an operator terminated, or what
finished by itself, stays as it is: a reload compares the configuration with the
configuration before, not with what runs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bgworker._control.protocol import Message
from bgworker._core.states import HAS_PROCESS, Origin, SlotState
from bgworker._host import rights
from bgworker._host import scale as scaling
from bgworker._host.plan import Action, Change, Configured, make_plan
from bgworker._spec import BackgroundWorker, printable, sanity_check, worker_from_dict
from bgworker.errors import ConfigurationError, NoFreeSlot, RegistrationError

if TYPE_CHECKING:
    from bgworker._host.host import Host
    from bgworker._host.scale import Scaled


@dataclass
class Static:
    """One static worker as configured, and the registration that holds it, if one does."""

    worker: BackgroundWorker
    slotno: int | None
    generation: int


@dataclass
class Plan:
    """What taking a loader's configuration means for each worker."""

    changes: list[Change] = field(default_factory=list)
    #: Workers that this host cannot register, with the reason.
    refused: dict[str, RegistrationError] = field(default_factory=dict)
    #: Those that the loader has refused: name and reason.
    rejected: list[tuple[str, str]] = field(default_factory=list)
    #: Numbers of instances that an operator chose and that stay, by the name without a number.
    scaled: dict[str, Scaled] = field(default_factory=dict)

    def view(self) -> dict[str, Any]:
        """Return the plan as JSON values: workers with nothing to say about them are only named."""
        said = [change for change in self.changes if change.action is not Action.NOTHING or change.reason]
        refused = [(name, error.message_primary) for name, error in self.refused.items()]
        rejected = [Change(name, Action.REJECTED, reason) for name, reason in (*self.rejected, *refused)]
        kept = [
            Change(name, Action.NOTHING, f"it was scaled and keeps {scaled.chosen} instances; the file says {scaled.configured}")
            for name, scaled in self.scaled.items()
            if scaled.chosen != scaled.configured
        ]
        return {
            "changes": [change.view() for change in [*said, *rejected, *kept]],
            "unchanged": [change.bgw_name for change in self.changes if change not in said],
        }


def plan(host: Host, message: Message, *, is_upgrade: bool = False) -> Plan:
    """Return what it takes to have the static workers as a loader describes them; changes nothing."""
    made = Plan(rejected=[(str(each["bgw_name"]), str(each["error"])) for each in message["rejected"]])
    wanted: dict[str, BackgroundWorker] = {}
    for each in message["workers"]:
        name = str(each["worker"].get("bgw_name"))
        try:
            worker = worker_from_dict(each["worker"])
            rights.check_identity(host.own_identity, worker)
            wanted[name] = sanity_check(worker, is_dynamic=False, has_database=host.has_database)
        except RegistrationError as error:
            made.refused[name] = error
    made.scaled = scaling.keep(host.scaled, wanted)
    known = {name: _configured(host, name, static) for name, static in host.static.items()}
    free = sum(slot.state is SlotState.FREE for slot in host.machine.slots)
    made.changes = make_plan(known, wanted, free, is_upgrade=is_upgrade)
    return made


def problem_of(host: Host, message: Message) -> ConfigurationError | None:
    """Return why a new configuration must not be taken: a worker that is registered now could not be any more."""
    made = plan(host, message)
    lost = dict(made.rejected)
    for name, error in made.refused.items():
        lost[name] = " ".join(filter(None, (f"{error.message_primary}.", error.message_detail, error.message_hint)))
    running = [name for name in lost if name in host.static]
    if not running:
        return None
    return ConfigurationError(
        f'background worker "{printable(running[0])}" could not be registered any more',
        "\n".join(lost[name] for name in running),
        "Everything runs on as it was. Mend the file, then try again.",
    )


def carry_out(host: Host, made: Plan) -> None:
    """Register, change and remove static workers as planned."""
    host.scaled = made.scaled
    for name, refusal in made.refused.items():
        reject(host, name, refusal)
    for change in made.changes:
        static = host.static.get(change.bgw_name)
        if change.worker is None:
            _remove(host, change.bgw_name)
        elif static is None:
            _register(host, change.worker)
        elif change.keys:
            _change(host, static, change.worker, change.action)


def _remove(host: Host, name: str) -> None:
    static = host.static.pop(name)
    host.finished.discard(name)
    if _is_registered(host, static):
        assert static.slotno is not None
        host.askers.note_reload((static.slotno, static.generation))
        host.apply(host.machine.terminate(static.slotno, static.generation, time.monotonic()))


def _register(host: Host, worker: BackgroundWorker) -> None:
    name = worker.bgw_name
    try:
        slot = host.register(worker, Origin.STATIC, None)
    except NoFreeSlot as error:
        # C14: said loudly, and the rest run.
        host.log(
            "LOG",
            error.message_primary,
            f'Background worker "{printable(name)}" was skipped. {error.message_detail}',
            error.message_hint,
        )
        reject(host, name, error, is_logged=True)
    except RegistrationError as error:
        reject(host, name, error)
    else:
        host.static[name] = Static(worker, slot.slotno, slot.generation)
        host.finished.discard(name)


def _change(host: Host, known: Static, worker: BackgroundWorker, action: Action) -> None:
    has_other_channels = known.worker.wake_on != worker.wake_on
    known.worker = worker
    if not _is_registered(host, known):
        return
    assert known.slotno is not None
    key, now = (known.slotno, known.generation), time.monotonic()
    if action is Action.LIVE:
        host.apply(host.machine.amend(*key, worker, now))
    else:
        host.apply(host.machine.replace(*key, worker, now, is_now=action is Action.RESTART))
    if has_other_channels:
        host.update_channels()


def _configured(host: Host, name: str, static: Static) -> Configured:
    if not _is_registered(host, static):
        return Configured(static.worker, False, False, host.finished.why(name).partition(";")[0])
    assert static.slotno is not None
    return Configured(static.worker, True, host.machine.slots[static.slotno].state in HAS_PROCESS)


def _is_registered(host: Host, static: Static) -> bool:
    if static.slotno is None:
        return False
    slot = host.machine.slots[static.slotno]
    return slot.generation == static.generation and slot.state is not SlotState.FREE


def reject(host: Host, name: str, error: RegistrationError, *, is_logged: bool = False) -> None:
    """List a static worker that could not be registered, and say so in the log."""
    more = " ".join(filter(None, (error.message_detail, error.message_hint)))
    text = f"{error.message_primary}: {more}" if more else error.message_primary
    host.rejected = [*host.rejected, {"bgw_name": name, "error": text}]
    if not is_logged:
        host.log("ERROR", error.message_primary, error.message_detail, error.message_hint)


def changed_settings(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the plugins whose [settings] table is not what it was."""
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))


def without_effect(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return a warning for each key that changed in the file and that only a start of the host takes up."""
    return [
        f"{key} changed in the file; it takes effect when the host is started again"
        for key in before
        if before[key] != after.get(key)
    ]


def summary(changes: Sequence[dict[str, Any]]) -> str:
    """Return the changes in one phrase for the log."""
    said = [f'{change["action"]} "{printable(change["bgw_name"])}"' for change in changes if change["action"] != "nothing"]
    return ", ".join(said) or "no worker changed"
