"""Static workers: plugins' registrations, changed by workers.toml, and workers.toml's own."""

from __future__ import annotations

from typing import Any

import pytest

from bgworker._config.load import parse_configuration
from bgworker._config.merge import (
    PluginRegistration,
    StaticWorkers,
    apply_overrides,
    excess,
    excess_error,
    merge_static_workers,
)
from bgworker._config.model import Configuration, WorkerTable
from bgworker._spec import (
    BGW_NEVER_RESTART,
    BGWORKER_SHMEM_ACCESS,
    DATABASE_WORKER_FLAGS,
    FIELD_NAMES,
    BackgroundWorker,
    BgWorkerFlags,
    BgWorkerStartTime,
)


def configuration(text: str) -> Configuration:
    return parse_configuration(text, "/srv/shop/workers.toml", {})


def registered(name: str, plugin: str = "notify_demo", **keys: Any) -> PluginRegistration:
    return PluginRegistration(
        plugin, BackgroundWorker(bgw_name=name, **({"bgw_library_name": plugin, "bgw_function_name": "main"} | keys))
    )


def merge(text: str, *registrations: PluginRegistration, active: tuple[str, ...] = ("notify_demo",)) -> StaticWorkers:
    return merge_static_workers(configuration(text), registrations, active)


def names(merged: StaticWorkers) -> list[str]:
    return [static.worker.bgw_name for static in merged.workers]


def rejected(merged: StaticWorkers) -> dict[str, str]:
    return {entry["bgw_name"]: entry["error"] for entry in merged.rejected}


OWN = '[[worker]]\nbgw_name = "own"\nbgw_library_name = "shop"\nbgw_function_name = "drain"\n'


def test_worker_of_the_file_alone() -> None:
    """C02 C05 C09 C13: a [[worker]] with a library runs without any plugin, with the defaults of a static worker."""
    merged = merge(OWN, active=())
    (static,) = merged.workers
    assert static.worker == BackgroundWorker(
        bgw_name="own",
        bgw_type="own",
        bgw_flags=BGWORKER_SHMEM_ACCESS,
        restart_on="crash",
        bgw_start_time=BgWorkerStartTime.BgWorkerStart_RecoveryFinished,
        bgw_restart_time=1.0,
        bgw_library_name="shop",
        bgw_function_name="drain",
        bgw_notify_pid=0,
    )
    assert static.origins["bgw_library_name"] == "workers.toml [[worker]] #1"
    assert static.origins["bgw_name"] == "workers.toml [[worker]] #1"
    assert static.origins["bgw_restart_time"] == static.origins["bgw_flags"] == "default"
    assert set(static.origins) == set(FIELD_NAMES)
    assert (merged.rejected, merged.warnings, merged.switched_off) == ([], [], {})


def test_every_key_reaches_the_registration() -> None:
    """C04 C07 C11 C12: what a [[worker]] says is what is registered."""
    (static,) = merge(
        OWN + 'bgw_type = "t"\nbgw_flags = ["BGWORKER_BACKEND_DATABASE_CONNECTION", "BGWORKER_SHMEM_ACCESS"]\n'
        'bgw_start_time = "BgWorkerStart_ConsistentState"\nbgw_restart_time = "BGW_NEVER_RESTART"\nbgw_main_arg = [1, "a"]\n'
        'bgw_extra = "x"\nwake_on = ["a", "b"]\nstop_timeout = 2\nstop_when = "phase_lost"\nsingleton = true\n'
        '[database]\nurl = "embedded"\n'
    ).workers
    assert static.worker == BackgroundWorker(
        bgw_name="own",
        bgw_type="t",
        bgw_flags=DATABASE_WORKER_FLAGS,
        bgw_start_time=BgWorkerStartTime.BgWorkerStart_ConsistentState,
        bgw_restart_time=BGW_NEVER_RESTART,
        bgw_library_name="shop",
        bgw_function_name="drain",
        bgw_main_arg=[1, "a"],
        bgw_extra="x",
        wake_on=("a", "b"),
        stop_timeout=2.0,
        stop_when="phase_lost",
        singleton=True,
        restart_on="crash",
    )


def test_worker_of_a_plugin_alone() -> None:
    """C02: what a plugin registers while it is initialised is a static worker."""
    (static,) = merge("", registered("heartbeat", bgw_restart_time=5.0)).workers
    assert (static.worker.bgw_restart_time, static.worker.bgw_type) == (5.0, "heartbeat")
    assert static.origins["bgw_restart_time"] == "plugin notify_demo"
    assert static.origins["bgw_extra"] == "default"


def test_entry_changes_only_the_keys_it_sets() -> None:
    """An entry without a library overrides the plugin's worker of its name, key by key; the origins tell."""
    merged = merge(
        OWN + '[[worker]]\nbgw_name = "heartbeat"\nbgw_restart_time = 9\nbgw_extra = ""\n',
        registered("heartbeat", bgw_restart_time=5.0, bgw_extra="plugin's", wake_on=("orders",), bgw_main_arg={"every": 1}),
    )
    static = next(static for static in merged.workers if static.worker.bgw_name == "heartbeat")
    assert (static.worker.bgw_restart_time, static.worker.bgw_extra, static.worker.bgw_main_arg) == (9.0, "", {"every": 1})
    assert {key: static.origins[key] for key in ("bgw_name", "bgw_restart_time", "bgw_extra", "wake_on", "stop_timeout")} == {
        "bgw_name": "plugin notify_demo",
        "bgw_restart_time": "workers.toml [[worker]] #2",
        "bgw_extra": "workers.toml [[worker]] #2",
        "wake_on": "plugin notify_demo",
        "stop_timeout": "default",
    }


def test_apply_overrides_is_pure() -> None:
    """apply_overrides gives a new registration and leaves the old one as it was."""
    worker = BackgroundWorker(bgw_name="a", bgw_extra="x")
    table = WorkerTable(bgw_name="a", bgw_extra="y", bgw_flags=["BGWORKER_SHMEM_ACCESS"], enabled=False)
    assert apply_overrides(worker, table) == BackgroundWorker(bgw_name="a", bgw_extra="y")
    assert worker.bgw_extra == "x"
    assert apply_overrides(worker, WorkerTable(bgw_name="a")) == worker


def test_switched_off() -> None:
    """A worker with enabled = false is out, the file's own as well as a plugin's, and says which entry did."""
    merged = merge(
        OWN + 'enabled = false\n[[worker]]\nbgw_name = "heartbeat"\nenabled = false\n', registered("heartbeat"), registered("b")
    )
    assert names(merged) == ["b"]
    assert merged.switched_off == {"own": "workers.toml [[worker]] #1", "heartbeat": "workers.toml [[worker]] #2"}
    assert merged.rejected == []


def test_order() -> None:
    """The file's own workers come first, then the plugins', each in the order written."""
    merged = merge(OWN + OWN.replace("own", "own too"), registered("b"), registered("a"), active=())
    assert names(merged) == ["own", "own too", "b", "a"]


def test_entry_that_meets_no_worker() -> None:
    """An entry that names neither a library nor a registered worker is an error with the nearest names; the rest run."""
    merged = merge(
        '[[worker]]\nbgw_name = "heartbaet"\nbgw_extra = "x"\n' + OWN, registered("heartbeat"), registered("heartbeat 2")
    )
    assert names(merged) == ["own", "heartbeat", "heartbeat 2"]
    error = rejected(merged)["heartbaet"]
    assert error.startswith('/srv/shop/workers.toml:2: [[worker]] #1 "heartbaet" cannot be registered: it names neither bgw_lib')
    assert 'the nearest registered names are "heartbeat", "heartbeat 2".' in error
    assert "shared_preload_libraries" in error


def test_entry_that_meets_nothing_at_all() -> None:
    """Without any name near it, the error goes without."""
    merged = merge('[[worker]]\nbgw_name = "heartbeat"\nenabled = false\n', registered("zzz"))
    assert "nearest" not in rejected(merged)["heartbeat"]
    assert names(merged) == ["zzz"]


def test_two_plugins_register_one_name() -> None:
    """T65: of two plugins that register one name the second is rejected, and both are named."""
    merged = merge("", registered("x", "one"), registered("x", "two"), registered("y", "two"))
    assert [static.worker.bgw_library_name for static in merged.workers] == ["one", "two"]
    assert rejected(merged) == {
        "x": 'background worker "x" of plugin "two" cannot be registered: the name is already that of a worker of plugin "one"'
    }


def test_one_plugin_registers_a_name_twice() -> None:
    """T65: the same plugin does not get a name twice either."""
    merged = merge("", registered("x"), registered("x"))
    assert (names(merged), list(rejected(merged))) == (["x"], ["x"])


def test_override_of_a_name_registered_twice() -> None:
    """The entry changes the worker that keeps the name, and is no error."""
    merged = merge('[[worker]]\nbgw_name = "x"\nbgw_extra = "e"\n', registered("x", "one"), registered("x", "two"))
    assert [static.worker.bgw_extra for static in merged.workers] == ["e"]
    assert len(merged.rejected) == 1


@pytest.mark.parametrize("enabled", ["", "enabled = false\n"])
def test_entry_with_a_library_takes_the_name(enabled: str) -> None:
    """A worker of the file's own keeps its name against a plugin, also switched off; the plugin's is rejected."""
    merged = merge(OWN + enabled, registered("own"))
    assert [static.worker.bgw_library_name for static in merged.workers] == ([] if enabled else ["shop"])
    assert "workers.toml [[worker]] #1" in rejected(merged)["own"]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"bgw_flags": BgWorkerFlags(0)}, "it must ask for shared memory access"),
        ({"bgw_flags": DATABASE_WORKER_FLAGS}, "this host has no database"),
        ({"bgw_restart_time": -2.0}, "bgw_restart_time is out of range"),
        ({"bgw_notify_pid": 1}, "Only dynamic background workers can request notification."),
        ({"bgw_function_name": ""}, "it names no function"),
        ({"bgw_extra": "x" * 129}, "129 bytes of UTF-8"),
        ({"bgw_extra": 5}, "a value of it has the wrong type"),
        ({"bgw_flags": "BGWORKER_SHMEM_ACCESS"}, "a value of it has the wrong type"),
        ({"bgw_restart_time": 10**400}, "cannot be registered"),
        ({"bgw_main_arg": object()}, "bgw_main_arg is not a JSON value"),
        ({"bgw_start_time": "BgWorkerStart_ConsistentState"}, "a value of it has the wrong type"),
        ({"wake_on": None}, "a value of it has the wrong type"),
    ],
)
def test_wrong_registration_of_a_plugin(keys: dict[str, Any], problem: str) -> None:
    """C05 C06 C09 C13: what a plugin registers wrongly is rejected with the plugin's name, and the rest run."""
    merged = merge("", registered("bad", **keys), registered("good"))
    assert names(merged) == ["good"]
    error = rejected(merged)["bad"]
    assert problem in error
    assert error.endswith('It is registered by plugin "notify_demo".')


def test_name_that_is_no_string() -> None:
    """A plugin whose name for a worker is no string is told so like any other mistake."""
    merged = merge("", registered(5), registered("good"))  # type: ignore[arg-type]
    assert names(merged) == ["good"]
    assert "5" in rejected(merged)


def test_override_that_does_not_fit() -> None:
    """C08: a change that only together with the plugin's keys is wrong is rejected, naming both."""
    merged = merge(
        '[database]\nurl = "embedded"\n[[worker]]\nbgw_name = "x"\nbgw_start_time = "BgWorkerStart_PostmasterStart"\n',
        registered("x", bgw_flags=DATABASE_WORKER_FLAGS),
    )
    error = rejected(merged)["x"]
    assert "BgWorkerStart_PostmasterStart" in error
    assert error.endswith('It is registered by plugin "notify_demo" and changed by workers.toml [[worker]] #1.')


def test_settings_of_a_plugin_that_is_not_active() -> None:
    """Settings that nobody reads are a warning with the nearest plugin, not an error."""
    merged = merge("[settings.notify_demo]\na = 1\n[settings.notify-demo]\na = 1\n[settings.zzz]\n")
    assert merged.warnings == [
        '[settings.notify-demo] has no effect: no active plugin has this name, the nearest is "notify_demo"',
        "[settings.zzz] has no effect: no active plugin has this name",
    ]


def test_wake_on_without_a_database() -> None:
    """A worker that waits for notifications without a database runs, with a warning."""
    merged = merge(OWN + 'wake_on = ["orders"]\n', active=())
    assert names(merged) == ["own"]
    assert merged.warnings == ['wake_on of background worker "own" has no effect: there is no [database]']


def test_excess() -> None:
    """C14: the last workers are those that get no slot, and the error says how many."""
    workers = merge("", *(registered(f"w{number}") for number in range(6))).workers
    assert excess(workers, 6) == []
    assert excess_error(workers, 6) is None
    assert [static.worker.bgw_name for static in excess(workers, 4)] == ["w4", "w5"]
    assert len(excess(workers, -1)) == 6
    error = excess_error(workers, 2)
    assert error is not None
    assert error.message_primary == "too many background workers: 4 of 6 get no slot"
    assert error.message_detail == (
        'Up to 2 background workers can be registered with the current settings. Left out: "w2", "w3", "w4" and 1 more.'
    )
    assert error.message_hint == 'Consider increasing the configuration parameter "max_worker_processes" in [host].'


def test_file_of_another_name() -> None:
    """Origins name the file as it is called."""
    text = parse_configuration(OWN, "/srv/shop/production.toml", {})
    assert merge_static_workers(text, [], []).workers[0].origins["bgw_name"] == "production.toml [[worker]] #1"
    assert merge_static_workers(Configuration(), [registered("a")], []).workers[0].origins["bgw_name"] == "plugin notify_demo"


@pytest.mark.parametrize(
    ("keys", "warning"),
    [
        ("max_memory = 200", "200 bytes, and a Python worker uses more than 16M"),
        ('max_memory = "15M"', "15M, and a Python worker uses more than 16M"),
        ('max_memory = "16M"', ""),
        ('command = ["sleep", "9"]\nmax_memory = "1M"', ""),
        ('command = ["sleep", "9"]\nmax_memory = 200', "200 bytes, and no program runs in that"),
    ],
)
def test_max_memory_that_no_worker_can_keep(keys: str, warning: str) -> None:
    """Less than an interpreter needs is a warning, for it would be stopped soon after each start; a program may need little."""
    text = '[[worker]]\nbgw_name = "own"\n' + ("" if "command" in keys else 'bgw_library_name = "a"\nbgw_function_name = "b"\n')
    said = f'max_memory of background worker "own" is {warning}: it would be stopped soon after each start'
    assert merge(text + keys, active=()).warnings == ([said] if warning else [])
