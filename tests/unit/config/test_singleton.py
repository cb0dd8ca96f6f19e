"""The key ``singleton``: who may have it, and what those are told who may not."""

from __future__ import annotations

import pytest

from bgworker._config.load import ConfigurationErrors, parse_configuration
from bgworker._config.merge import PluginRegistration, StaticWorkers, merge_static_workers
from bgworker._spec import DATABASE_WORKER_FLAGS, BackgroundWorker, sanity_check, worker_from_dict
from bgworker.errors import RegistrationError

OWN = '[[worker]]\nbgw_name = "own"\nbgw_library_name = "shop"\nbgw_function_name = "drain"\n'
FLAGS = 'bgw_flags = ["BGWORKER_SHMEM_ACCESS", "BGWORKER_BACKEND_DATABASE_CONNECTION"]\n'
DATABASE = '[database]\nurl = "embedded"\n'
REFUSAL = "singleton needs a database connection"


def merge(text: str, *workers: BackgroundWorker) -> StaticWorkers:
    """Return the static workers of a file and of one plugin."""
    return merge_static_workers(
        parse_configuration(text, "/srv/workers.toml", {}), [PluginRegistration("shop", worker) for worker in workers], ["shop"]
    )


def plugins_worker(**keys: object) -> BackgroundWorker:
    return BackgroundWorker(bgw_name="plugins", bgw_library_name="shop", bgw_function_name="f", **keys)  # type: ignore[arg-type]


def test_registration_without_the_flag_is_refused() -> None:
    """A worker that may not connect has no session to hold a lock; the refusal names the flag."""
    worker = BackgroundWorker(bgw_name="w", bgw_library_name="l", bgw_function_name="f", singleton=True)
    with pytest.raises(RegistrationError) as refusal:
        sanity_check(worker, is_dynamic=True)
    assert refusal.value.message_primary == f'background worker "w" cannot be registered: {REFUSAL}'
    assert "BGWORKER_BACKEND_DATABASE_CONNECTION" in refusal.value.message_hint
    assert sanity_check(plugins_worker(singleton=True, bgw_flags=DATABASE_WORKER_FLAGS), is_dynamic=True).singleton is True


def test_wire_form() -> None:
    """The key travels as a boolean and as nothing else."""
    data = plugins_worker(singleton=True, bgw_flags=DATABASE_WORKER_FLAGS).to_dict()
    assert data["singleton"] is True
    assert worker_from_dict(data).singleton is True
    for wrong in (1, "yes", None):
        with pytest.raises(RegistrationError, match="singleton must be true or false"):
            worker_from_dict({**data, "singleton": wrong})


@pytest.mark.parametrize("text", [OWN + "singleton = true\n", OWN + 'bgw_flags = ["BGWORKER_SHMEM_ACCESS"]\nsingleton = true\n'])
def test_file_without_the_flag_is_refused(text: str) -> None:
    """In workers.toml it is one error, at the key."""
    with pytest.raises(ConfigurationErrors) as caught:
        parse_configuration(text + DATABASE, "/srv/workers.toml", {})
    (error,) = caught.value.errors
    assert error.message_primary.endswith('[[worker]] #1 "own" singleton: needs a database connection')


def test_file_with_the_flag() -> None:
    """Before the flag or after it."""
    for keys in (FLAGS + "singleton = true\n", "singleton = true\n" + FLAGS):
        (static,) = merge(OWN + keys + DATABASE).workers
        assert static.worker.singleton is True


def test_plugins_worker_made_a_singleton() -> None:
    """The operator makes a plugin's worker one without repeating its flags; they are looked at when both are known."""
    text = '[[worker]]\nbgw_name = "plugins"\nsingleton = true\n' + DATABASE
    (static,) = merge(text, plugins_worker(bgw_flags=DATABASE_WORKER_FLAGS)).workers
    assert static.worker.singleton is True
    assert static.origins["singleton"] == "workers.toml [[worker]] #1"
    merged = merge(text, plugins_worker())
    assert merged.workers == []
    assert REFUSAL in merged.rejected[0]["error"]
