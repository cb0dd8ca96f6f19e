"""Whatever the host knows either goes along when it executes itself anew, or is made anew, and both are said here.

Whoever adds an attribute to a room of the host must decide: carry it (the room's ``carry`` and ``resume``, and a test that
it arrives), or name it below as made anew, because it follows from something else or belongs to a process or a loop that
is another one afterwards. What a class of its own file carries by its fields alone (Slot, Exit, Run, Static) needs no entry.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "host" / "bgworker"

#: By file and class: what goes along, and what is made anew.
ROOMS: dict[str, tuple[str, str]] = {
    "_host/askers.py Askers": ("_latest _shutdown", ""),
    # A birth in flight is asked of the next loader; a spare is dropped.
    "_host/births.py Births": (
        "_last_birth spares _waiting by_pid",
        "_loop _send _on_born _on_failed _on_message _has_loader _unborn _stashed_exits",
    ),
    # usage is known only of a process that is over; the caller is made of the rest.
    "_host/births.py WorkerProcess": (
        (
            "life kind worker channel log_fds requested_at birth pid connection is_abandoned last_words database "
            "code is_executing missed was_spare has_spoken"
        ),
        "child_fds usage caller",
    ),
    # grants and is_confined follow from the configuration, pid, uid and open_pidfd from the socket.
    "_host/callers.py Caller": (
        "connection worker handles registered is_subscribed",
        "pid grants uid is_confined open_pidfd",
    ),
    "_host/callers.py Callers": ("_all overhearing", ""),
    "_host/callers.py NotifyTarget": ("_pid _fd", ""),
    # The new host looks at its children at once, whatever was left to be done.
    "_host/children.py Children": ("strays", "_host stopped _may_have_more_exits"),
    "_host/data_directory.py HostLocks": ("_host_fd workers_fd", ""),
    # Who is deaf the next database process says; while the host shuts down nothing is carried.
    "_host/database.py DatabaseWatch": (
        (
            "_settings _data_directory phase _phase_name detail _url _conninfo _direct_conninfo _is_pooled postgres_pid _channels"
            " openings"
        ),
        (
            "_max_connections _on_change _on_notify _log kind _deaf _is_stopping _is_immediate stop_by _last_said _is_postgres_told"
            " process"
        ),
    ),
    # The helpers are other processes afterwards.
    "_host/helper_process.py HelperProcess": (
        "",
        (
            "_loop name _module _fds _on_start _on_message _on_exit _output_fds _on_nonsense _owns_session pid "
            "connection is_wanted is_held is_parting _started_at _pause start_at"
        ),
    ),
    "_host/host.py Host": (
        (
            "configuration data_directory config_path log_to started_at machine segments crash_count finished "
            "waits callers ready_done registrars settings static scaled broken_plugins rejected preloaded "
            "python_path plugins reloaded fixed is_loaded children own_identity access lifeline locks output "
            "records news askers loaders births memory database socket_name server program_notices slot_table "
            "activity_table blank_table"
        ),
        "loop schedules restart_after_crash spare_workers status shutdown service _notify_events wake_ups reexec",
    ),
    "_host/loaders.py Loader": (
        "config_text ready excluded exec_only is_upgrade",
        "process is_ready importing import_deadline has_complained deaths",
    ),
    "_host/loaders.py Loaders": (
        "current _was_ready_once _last_complaint",
        (
            "_loop _fds _configure _load_timeout _on_ready _on_gone _on_answer _on_fatal _log _output_fds _vet "
            "candidate _requests _next _retiring"
        ),
    ),
    "_host/memory.py MemoryWatch": ("_look_at", "_slots"),
    "_host/news.py News": ("askers _targets _started_at", "_machine _callers _records _ending"),
    # At most a second's count of notifications that were not told.
    "_host/notify_events.py NotifyEvents": ("", "_callers _clock _second _told _untold"),
    "_host/openings.py Openings": ("_asked", "_send _numbers"),
    "_host/output.py Output": ("_attached _loader_pipes _rests _lost records", "_configuration collector"),
    "_host/output.py _Attached": ("process worker is_static end", ""),
    "_host/program_notices.py ProgramNotices": ("_socket _bound", "_loop _processes _activities _on_message _log _said path"),
    "_host/records.py Records": ("_waiting _lost", "_send"),
    # Nothing is executed while a loader is read, or a rehearsal that was given up has not been reaped.
    "_host/reexec.py Reexec": (
        "_asked _put_off",
        "_host _stage _deadline _is_insisting _is_due _pid _given_up _output_fd _output",
    ),
    # Times of day are found anew, as after a clock that was set.
    "_host/schedules.py Schedules": ("", "_loop _clock_was_set _clock _is_watching"),
    "_host/segments.py Segments": ("_by_name", "_limit"),
    "_host/segments.py _Memory": ("size generation fd", ""),
    "_host/service.py Service": (
        "",
        "_status _address _socket _is_stopping _told _is_changed _status_at _interval _alive_at",
    ),
    "_host/shutdown.py Shutdown": ("", "_host fatal_exit_code exit_code stop_helpers_by"),
    "_host/spares.py Spares": ("leaving", "wanted _ready _refill_at"),
    "_host/status.py Finished": ("_entries _reasons", ""),
    "_host/status_line.py StatusLine": ("", "_host _parts"),
    "_host/stopped.py StoppedChildren": ("", "_log _continue_at _patience"),
    "_host/strays.py Strays": ("can_find _highest _next _living killed", "_to_look_at _must_look"),
    "_host/waits.py Wait": ("owner slotno generation target deadline describe request_id", "reply refuse"),
    "_host/waits.py Waits": ("_by_slot _by_owner _deadlines", "_count _open"),
    # Nothing is heard until the next database process says so, and then everybody is told that something may be missed.
    "_host/wake_on.py WakeUps": ("", "_slots _processes _effective _routes"),
    # What is made anew follows from the slots and the configuration.
    "_core/slots.py SlotMachine": (
        "slots _roster _order _conditions _shutdown _crashes",
        "_agenda _wishes _runs _registrations _ends _timeouts",
    ),
    "_core/roster.py Roster": ("slots", "_order _agenda _first_free"),
    "_core/order.py Order": ("_ends", "_slots _seen _bearers _followers"),
    "_core/conditions.py Conditions": ("phase _phase_detail", "_order"),
    "_core/agenda.py Agenda": ("", "_slots _conditions _instants _now _is_all_changed _changed _has_groups"),
    "_core/agenda.py Instants": ("", "_by_slot _heap"),
    "_core/wishes.py Wishes": ("", "_roster _stop_timeout"),
    "_core/runs.py Runs": ("", "_roster _timetable"),
    "_core/registrations.py Registrations": ("", "_roster _order _conditions _runs _wishes"),
    "_core/shutdown.py Shutdown": ("mode _live_handles _held", "_roster _order _wishes"),
    "_core/crashes.py Crashes": ("_count", "_roster _scope"),
    "_core/ends.py Ends": ("", "_roster _conditions _runs _crashes _shutdown _draw"),
    "_core/timeouts.py Timeouts": ("", "_roster _wishes _runs _ends _shutdown _start_timeout _draw"),
    "_shm/table.py SlotTable": ("_fd read_only_fd _sequence", "_records"),
    "_shm/table.py ActivityTable": ("fd read_only_fd _seq", ""),
    "_process/lifeline.py Lifeline": ("read_fd _write_fd", ""),
    "_control/connection.py Connection": (
        "_socket _decoder _unsent _owned _unsent_bytes _unserved is_open is_unread messages_sent",
        "_loop _on_message _on_close _on_malformed _is_put_off _is_postponed _events when_flushed _is_draining",
    ),
    "_control/protocol.py Decoder": ("_buffer", "_limit"),
    "_control/server.py ControlServer": (
        "peers _name _socket",
        "_loop _on_open _greeting _admits _on_names _is_accepting _resume_at",
    ),
    "_control/server.py Peer": ("_socket is_owner connection", "_server pid uid on_request on_close"),
    "_control/socket_name.py SocketName": (
        "_bound_fd _data_fd _run_fd listener",
        "path _group _make_directory _log _said retry_at _watch _watches",
    ),
    "_loop.py Loop": ("_pending", "_selector _wake_receiver _wake_sender _soon _before_waiting _turn_began"),
}
#: Values that are made and passed on, and not kept by a room: what they hold is carried by the room that keeps them, if any.
VALUES = {
    "_host/births.py Life", "_host/loaders.py Ask", "_host/loaders.py _Request", "_host/openings.py _Asked", "_host/plan.py Action",
    "_host/plan.py Effect", "_host/plan.py Shown", "_host/plan.py Row", "_host/plan.py KeyChange", "_host/plan.py Change",
    "_host/plan.py Configured", "_host/reexec.py _Stage", "_host/reexec.py _UnwrittenError", "_host/reload.py Static",
    "_host/reload.py Plan", "_host/rights.py Right", "_host/rights.py Grants", "_host/rights.py Access", "_host/scale.py Scaled",
}  # fmt: skip


def attributes(place: str) -> set[str]:
    """Return what instances of a class are given in its own file: fields, and whatever is assigned to self."""
    file, name = place.split()
    (cls,) = (n for n in ast.parse((SOURCE / file).read_text()).body if isinstance(n, ast.ClassDef) and n.name == name)
    fields = {node.target.id for node in cls.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
    assigned = {
        node.attr
        for node in ast.walk(cls)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and getattr(node.value, "id", "") == "self"
    }
    return fields | assigned


@pytest.mark.parametrize("place", ROOMS)
def test_every_attribute_is_carried_or_made_anew(place: str) -> None:
    """Nobody adds something for the host to remember without saying what becomes of it when the host executes itself anew."""
    carried, anew = (set(names.split()) for names in ROOMS[place])
    assert not carried & anew
    found = attributes(place)
    assert found - carried - anew == set(), "carry these in the room's carry() and resume(), or name them as made anew"
    assert (carried | anew) - found == set(), "these are no attributes any more"


def test_every_room_of_the_host_is_looked_at() -> None:
    """A new class of the host has an entry, too."""
    found = {
        f"_host/{path.name} {node.name}"
        for path in (SOURCE / "_host").glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    }
    assert found - {place for place in ROOMS if place.startswith("_host/")} == VALUES
