"""The loader that serves and the candidate that is to follow it: who may say what, and what their ends mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bgworker._host import loaders as module
from bgworker._host.loaders import Ask, Loaders
from bgworker.errors import HostError


class FakeProcess:
    """A helper process that only notes what is done to it."""

    made: list[FakeProcess]

    def __init__(
        self, loop: Any, name: str, program: str, fds: Any, on_start: Any, on_message: Any, on_exit: Any, *_: Any, **_k: Any
    ) -> None:
        self.say: Callable[[dict[str, Any]], None] = on_message
        self.end: Callable[[int | None], None] = on_exit
        self.pid: int | None = 4711
        self.connection = None
        self.is_wanted = True
        self.is_parting = False
        self.done: list[str] = []
        FakeProcess.made.append(self)

    def kill(self) -> None:
        """Note that it was ended."""
        self.done.append("kill")

    abort = restart_at_once = kill

    def send(self, message: dict[str, Any], fds: Any = ()) -> bool:
        """Note what it was told."""
        self.done.append(message["type"])
        return True

    def hold(self, is_held: bool) -> None:
        """End like the real one, that may be started again once it has gone."""
        self.is_parting = self.pid is not None and (is_held or self.is_parting)


class World:
    """What the host hears of its loaders."""

    def __init__(self) -> None:
        FakeProcess.made = []
        self.ready: list[tuple[str, bool]] = []
        self.fatal: list[list[HostError]] = []
        self.log: list[str] = []
        self.loaders = Loaders(
            None, (0, 0), lambda: ({}, []), 30.0, "", lambda m, is_new: self.ready.append((m["config_text"], is_new)),
            lambda: None, lambda m: None, self.fatal.append, lambda level, message, *_: self.log.append(message), (1, 2),
        )  # type: ignore[arg-type]  # fmt: skip


def ready(text: str) -> dict[str, Any]:
    """Return what a loader says that is ready."""
    return {"type": "ready", "config_text": text, "broken_plugins": []}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(module, "HelperProcess", FakeProcess)
    return World()


def test_words_of_a_replaced_loader_are_ignored(world: World) -> None:
    """A loader that was replaced while it was loading says too late that it is ready."""
    world.loaders.reload(lambda failure: None)
    first, second = FakeProcess.made
    second.say(ready("new"))
    first.say(ready("old"))
    assert world.ready == [("new", True)]


def test_no_plugin_is_blamed_for_an_end_on_purpose(world: World) -> None:
    """A loader that is ended because the host executes itself anew may have begun an import that the host reads of afterwards."""
    (only,) = FakeProcess.made
    only.say(ready("text"))
    world.loaders.hold(True)
    only.say({"type": "importing", "plugin": "innocent"})
    only.end(9)
    assert world.loaders.current.excluded == {}
    assert world.log == []


def test_replacement_that_finds_errors_stops_nobody(world: World) -> None:
    """Errors are fatal to a start only; a loader that follows one that was ready is tried again, and said so once."""
    (only,) = FakeProcess.made
    only.say(ready("text"))
    error = HostError("no such key").to_dict()
    for _ in range(3):
        only.say({"type": "configuration_error", "errors": [error]})
        only.end(9)
    assert world.fatal == []
    assert len([line for line in world.log if "has errors now" in line]) == 1


def test_candidate_that_dies_again_and_again_ends_the_reload(world: World) -> None:
    """A reload whose loader never gets anywhere is refused instead of never answered; who came meanwhile gets a try."""
    FakeProcess.made[0].say(ready("text"))
    first: list[HostError | None] = []
    second: list[HostError | None] = []
    world.loaders.reload(first.append)
    world.loaders.reload(second.append)
    for _ in range(3):
        assert first == []
        FakeProcess.made[1].end(9)
    assert isinstance(first[0], HostError)
    assert second == []
    FakeProcess.made[2].say(ready("text"))
    assert second == [None]


def test_shutdown_refuses_every_reload(world: World) -> None:
    """What is going on and what waits are both answered, and nothing new begins."""
    answers: list[HostError | None] = []
    for _ in range(3):
        world.loaders.reload(answers.append)
    world.loaders.cancel_reload(HostError("shutting down"))
    assert [str(answer) for answer in answers] == ["could not reload: shutting down"] * 3
    assert len(FakeProcess.made) == 2


def test_plan_takes_nothing_over(world: World) -> None:
    """A candidate that was only asked for a plan is dropped when it has answered; the loader in use stays."""
    (first,) = FakeProcess.made
    first.say(ready("old"))
    seen: list[Any] = []

    def done(failure: HostError | None) -> None:
        assert world.loaders.candidate is not None
        seen.append((failure, world.loaders.candidate.ready["config_text"]))

    world.loaders.reload(done, Ask.PLAN)
    FakeProcess.made[1].say(ready("new"))
    assert seen == [(None, "new")]
    assert world.ready == [("old", True)]
    assert world.loaders.current.config_text == "old"
    assert FakeProcess.made[1].done[-1] == "kill"


def test_requests_that_can_share_a_candidate_do(world: World) -> None:
    """A plan and a reload that wait are answered by one loader; an upgrade, which does not read the file, by another."""
    FakeProcess.made[0].say(ready("old"))
    answered: list[str] = []
    for name, ask in (("first", Ask.RELOAD), ("plan", Ask.PLAN), ("upgrade", Ask.UPGRADE), ("reload", Ask.RELOAD)):
        world.loaders.reload(lambda failure, name=name: answered.append(name), ask)  # type: ignore[misc]
    FakeProcess.made[1].say(ready("one"))
    assert answered == ["first"]
    FakeProcess.made[2].say(ready("two"))
    assert answered == ["first", "plan", "reload"]
    assert world.loaders.candidate is not None
    assert world.loaders.candidate.config_text == "two"
    FakeProcess.made[3].say(ready("two"))
    assert answered == ["first", "plan", "reload", "upgrade"]


def test_failed_plan_is_no_line_of_the_log(world: World) -> None:
    """Whoever asked is told; nothing that runs is concerned."""
    FakeProcess.made[0].say(ready("old"))
    answers: list[HostError | None] = []
    world.loaders.reload(answers.append, Ask.PLAN)
    FakeProcess.made[1].say({"type": "configuration_error", "errors": [HostError("no such key").to_dict()]})
    assert "the configuration has errors" in str(answers[0])
    assert world.log == []


def test_each_is_told_of_what_was_asked_for(world: World) -> None:
    """A plan and a reload that share a candidate, and an upgrade: whatever is wrong, each error names its own request."""
    FakeProcess.made[0].say(ready("old"))
    answers: dict[str, HostError | None] = {}

    def ask(name: str, what: Ask) -> None:
        world.loaders.reload(lambda failure: answers.update({name: failure}), what)

    wrong = {"type": "configuration_error", "errors": [HostError("no such key").to_dict()]}
    ask("running", Ask.PLAN)
    for name, what in (("plan", Ask.PLAN), ("reload", Ask.RELOAD), ("upgrade", Ask.UPGRADE)):
        ask(name, what)
    for number in (1, 2):
        FakeProcess.made[number].say(wrong)
    FakeProcess.made[3].say(ready("text") | {"broken_plugins": [{"name": "shop", "error": "ZeroDivisionError"}]})
    assert {name: str(answer) for name, answer in answers.items()} == {
        "running": "could not plan a reload: the configuration has errors",
        "plan": "could not plan a reload: the configuration has errors",
        "reload": "could not reload: the configuration has errors",
        "upgrade": 'could not upgrade: plugin "shop" is broken',
    }
    assert [line for line in world.log if line.startswith("could not")] == [
        "could not reload: the configuration has errors",
        'could not upgrade: plugin "shop" is broken',
    ]
