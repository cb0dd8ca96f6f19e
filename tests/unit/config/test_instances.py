"""instances in workers.toml: which workers an entry makes, what they are called, and whose names they must not have."""

from __future__ import annotations

import pytest

from bgworker._config.after import check_after, check_names
from bgworker._config.load import parse_configuration
from bgworker._config.merge import PluginRegistration, StaticWorkers, merge_static_workers
from bgworker._spec import BackgroundWorker, sanity_check, worker_from_dict

KEYS = 'bgw_library_name = "l"\nbgw_function_name = "f"\n'


def merged(text: str, *plugins: BackgroundWorker) -> StaticWorkers:
    registrations = [PluginRegistration("p", worker) for worker in plugins]
    return merge_static_workers(parse_configuration(text, "/srv/workers.toml", {}), registrations, ["p"])


def web(count: int, name: str = "web") -> str:
    return f'[[worker]]\nbgw_name = "{name}"\n{KEYS}instances = {count}\n'


def test_names_and_numbers() -> None:
    """Each instance has the name with its number, the type of all, and the number by itself; it passes the wire as it is."""
    workers = [each.worker for each in merged(web(3)).workers]
    assert [(w.bgw_name, w.bgw_type, w.instance, w.instance_of) for w in workers] == [
        (f"web-{n}", "web", n, "web") for n in (1, 2, 3)
    ]
    assert [sanity_check(worker_from_dict(w.to_dict()), is_dynamic=False) for w in workers] == workers
    assert [each.worker.bgw_name for each in merged(web(1)).workers] == ["web-1"]
    (only,) = merged(web(1).replace("instances = 1\n", "")).workers
    assert (only.worker.bgw_name, only.worker.instance, only.worker.instance_of) == ("web", 0, "")


def test_instances_of_a_plugins_worker() -> None:
    """An entry without a library makes several of the plugin's worker; the plugin itself cannot number one."""
    plugin = BackgroundWorker(bgw_name="drain", bgw_library_name="l", bgw_function_name="f")
    workers = merged('[[worker]]\nbgw_name = "drain"\ninstances = 2\n', plugin).workers
    assert [each.worker.bgw_name for each in workers] == ["drain-1", "drain-2"]
    numbered = BackgroundWorker(bgw_name="drain-1", bgw_library_name="l", bgw_function_name="f", instance=1)
    (rejected,) = merged("", numbered).rejected
    assert "instance is set" in rejected["error"]


@pytest.mark.parametrize("other", ["file", "plugin"])
def test_name_of_an_instance_is_taken(other: str) -> None:
    """An instance whose name another worker has is refused by name, before anything starts."""
    plugin = BackgroundWorker(bgw_name="web-2", bgw_library_name="l", bgw_function_name="f")
    second = f'[[worker]]\nbgw_name = "web-2"\n{KEYS}' if other == "file" else ""
    workers = merged(web(2) + second, *([plugin] if other == "plugin" else []))
    (error,) = check_names(workers)
    assert error.message_primary == 'background worker name "web-2" is given twice'
    place = "workers.toml [[worker]] #2" if other == "file" else "plugin p"
    assert error.message_detail == (
        f"It is that of instance 2 of web, and of another worker. They are set in workers.toml [[worker]] #1 and {place}."
    )
    assert check_names(merged(web(2))) == []


def test_name_that_gets_too_long() -> None:
    """The number counts: a name that is too long with it is refused, and the count said."""
    (rejected,) = merged(web(10, "x" * 93)).rejected
    assert "bgw_name is too long: 96 bytes" in rejected["error"]


def test_after_all_of_them() -> None:
    """The name without a number means all instances, one with a number that one; circles through them are found."""
    after = f'[[worker]]\nbgw_name = "a"\n{KEYS}after = ["web:ready", "web-2"]\n'
    assert check_after(merged(web(2) + after), ()) == []
    (error,) = check_after(merged(web(2) + after.replace("web-2", "web-3")), ())
    assert 'after names "web-3"' in error.message_primary
    (error,) = check_after(merged(web(2) + 'after = ["a"]\n' + after.replace(', "web-2"', "")), ())
    assert error.message_primary == "background workers wait for each other: a after web after web-1 after a"
