"""_config/after.py: names that nobody bears, circles, and what is only a warning."""

from __future__ import annotations

import pytest

from bgworker._config.after import check_after
from bgworker._config.load import parse_configuration
from bgworker._config.merge import PluginRegistration, StaticWorkers, merge_static_workers
from bgworker._spec import BackgroundWorker


def merged(*after: list[str], plugin: BackgroundWorker | None = None, more: str = "") -> StaticWorkers:
    """Return the workers a, b, c ... of a file, each with its after."""
    text = "\n".join(
        f'[[worker]]\nbgw_name = "{name}"\nbgw_library_name = "l"\nbgw_function_name = "f"\nafter = {before}'
        for name, before in zip("abcdefgh", after, strict=False)
    )
    registrations = [PluginRegistration("p", plugin)] if plugin else []
    return merge_static_workers(parse_configuration(f"{text}\n{more}", "/srv/workers.toml", {}), registrations, ["p"])


def problems(workers: StaticWorkers, *broken: str) -> list[str]:
    """Return the errors' primaries."""
    return [error.message_primary for error in check_after(workers, broken)]


@pytest.mark.parametrize(
    ("after", "circle"),
    [
        ([["a"]], "a after a"),
        ([["b"], ["a:finished"]], "a after b after a"),
        ([[], ["c"], ["d:ready", "a"], ["b"]], "b after c after d after b"),
        ([["b"], ["c"], [], ["a"]], ""),
    ],
)
def test_circles(after: list[list[str]], circle: str) -> None:
    """Workers that wait for each other are refused, by name, with where each of them stands."""
    errors = check_after(merged(*after), ())
    assert [error.message_primary for error in errors] == ([f"background workers wait for each other: {circle}"] if circle else [])
    if circle == "a after b after a":
        places = "workers.toml [[worker]] #1, workers.toml [[worker]] #2"
        assert errors[0].message_detail == f"None of them could ever be started. It is set in {places}."


def test_unknown_names() -> None:
    """A name that nobody bears is refused with the nearest; a condition that is none is part of a name."""
    errors = check_after(merged(["order-drian:ready"], ["a:redy"], more=""), ())
    assert [error.message_primary.partition(": ")[2] for error in errors] == [
        'after names "order-drian", and there is no such worker',
        'after names "a:redy", and there is no such worker',
    ]
    assert errors[1].message_hint == 'Write "NAME" or "NAME:started|ready|finished".'
    plugin = BackgroundWorker(bgw_name="order-drain", bgw_library_name="l", bgw_function_name="f")
    (error,) = check_after(merged(["order-drian"], plugin=plugin), ())
    assert error.message_hint == 'The nearest is "order-drain".'


def test_workers_of_plugins_are_known() -> None:
    """What a plugin registers may be come after, and may come after others."""
    plugin = BackgroundWorker(bgw_name="p", bgw_library_name="l", bgw_function_name="f", after=("b",))
    assert problems(merged(["p"], [], plugin=plugin)) == []
    assert problems(merged(["p"], ["a"], plugin=plugin)) == ["background workers wait for each other: a after p after b after a"]


def test_those_that_are_known_and_absent() -> None:
    """Somebody who is switched off, refused or perhaps in a broken plugin is waited for; that is a warning."""
    off = '[[worker]]\nbgw_name = "off"\nbgw_library_name = "l"\nbgw_function_name = "f"\nenabled = false\n'
    lost = '[[worker]]\nbgw_name = "lost"\n'
    workers = merged(["off"], ["lost"], more=off + lost)
    assert problems(workers) == []
    assert workers.warnings == [
        'background worker "a" waits: it comes after "off", which is switched off',
        'background worker "b" waits: it comes after "lost", which is not registered',
    ]
    workers = merged(["x"])
    assert problems(workers, "shop") == []
    assert workers.warnings == ['background worker "a" waits: it comes after "x", which is unknown while plugin shop is broken']


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ('restart_on = "always"', 'restart_on = "always" starts it again after a success, too'),
        ('instances = 2\nrestart_on = "always"', 'restart_on = "always" starts it again after a success, too'),
        ('schedule = "0 3 * * *"', "its schedule starts it again, however it ended"),
        ('command = ["true"]', 'restart_on = "always", the default of a command, starts it again after a success, too'),
        ('command = ["true"]\nrestart_on = "crash"', ""),
        ("bgw_restart_time = 5", ""),
    ],
)
def test_an_end_that_never_comes(keys: str, why: str) -> None:
    """Waiting for the end of a worker that is always started again is a warning, with the reason; for its start it is none."""
    function = "" if "command" in keys else 'bgw_library_name = "l"\nbgw_function_name = "f"\n'
    workers = merged(["x:finished"], ["x:ready", "x"], more=f'[[worker]]\nbgw_name = "x"\n{function}{keys}')
    assert problems(workers) == []
    said = f'background worker "a" waits for ever: it comes after "x:finished", and that never is: {why}. '
    assert workers.warnings == ([f"{said}It is set in workers.toml [[worker]] #1."] if why else [])
