"""What is asked for, and what is made of the answers."""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bgworker import BackgroundWorker, errors
from bgworker._control import operations
from bgworker._control.aio_client import AsyncClient, AsyncEventStream
from bgworker._control.client import Client, EventStream, signal_name
from bgworker._control.protocol import MAX_DEPTH, MAX_REQUEST_BYTES
from bgworker._control.server import MAX_CONNECTIONS
from bgworker._handle import AsyncBackgroundWorkerHandle, BackgroundWorkerHandle
from bgworker._host.requests import METHODS
from bgworker._spec import FIELD_NAMES, MAX_MAIN_ARG_BYTES, sanity_check, worker_from_dict
from bgworker.errors import ProtocolError, RegistrationError, WorkerNotFound

DOCUMENT = Path(__file__).parents[3] / "docs" / "protocol.md"
WORKER = BackgroundWorker(bgw_name="x", bgw_library_name="x", bgw_function_name="x")

OPERATIONS: list[operations.Operation[Any]] = [
    operations.ping(),
    operations.status(),
    operations.register(WORKER, if_absent=True),
    operations.find("x"),
    operations.start("x"),
    operations.restart("x"),
    operations.terminate("x"),
    operations.send_signal("x", "SIGTERM"),
    operations.wait("x", "startup", 5),
    operations.last_exit("3.2"),
    operations.reload("/x/workers.toml"),
    operations.plan("/x/workers.toml"),
    operations.upgrade(),
    operations.reexec(),
    operations.scale("x", 3),
    operations.stop("fast"),
    operations.events(),
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.method)
def test_documented(operation: operations.Operation[Any]) -> None:
    """Every method has a section in docs/protocol.md that names each of its parameters."""
    section = re.search(rf"^### `{operation.method}`\n(.*?)(?=^##)", DOCUMENT.read_text() + "\n##", re.MULTILINE | re.DOTALL)
    assert section is not None
    for parameter in operation.params:
        assert f'"{parameter}"' in section[1]


def test_document_describes_no_other_method() -> None:
    """docs/protocol.md describes no method that this client does not know, those of workers apart."""
    described = set(re.findall(r"^### `(\w+)`$", DOCUMENT.read_text(), re.MULTILINE))
    assert described == {operation.method for operation in OPERATIONS}


def test_served() -> None:
    """The host serves every method that is documented, and beyond them only those of workers."""
    assert set(METHODS) - {"settings", "ready_done", "open_database", "close_database", "attach_segment"} == {
        operation.method for operation in OPERATIONS
    }


def test_errors_and_limits_are_documented() -> None:
    """docs/protocol.md lists every error code with its exit code, and the limits that hold."""
    text = DOCUMENT.read_text()
    listed = {code: int(number) for code, number in re.findall(r"^\| `(\w+)` .*\| (\d) +\|$", text, re.MULTILINE)}
    assert listed == {code: error.exit_code for code, error in errors._BY_CODE.items()}
    for limit in (MAX_REQUEST_BYTES, MAX_MAIN_ARG_BYTES):
        assert f"{limit:,}" in text
    assert f"at most {MAX_DEPTH} deep" in text
    assert f"the\n  {MAX_CONNECTIONS} that a host serves" in text


def test_registration_is_documented() -> None:
    """docs/protocol.md lists every key of a registration."""
    rows = re.findall(r"^\| ((?:`\w+`,? *)+)\| ", DOCUMENT.read_text(), re.MULTILINE)
    assert {key for row in rows for key in re.findall(r"`(\w+)`", row)} >= set(FIELD_NAMES)


@pytest.mark.parametrize("value", ["always", None, ["phase_lost"]])
def test_stop_when_on_the_wire(value: Any) -> None:
    """A registration says stop_when in one of two words; anything else is refused, and the key is named."""
    worker = replace(WORKER, stop_when="phase_lost")
    assert worker_from_dict(worker.to_dict()) == worker
    with pytest.raises(RegistrationError, match="stop_when must be one of never, phase_lost"):
        worker_from_dict({**worker.to_dict(), "stop_when": value})
    with pytest.raises(RegistrationError, match="stop_when must be one of never, phase_lost"):
        sanity_check(replace(worker, stop_when=value), is_dynamic=True)


@pytest.mark.parametrize(("timeout", "sent"), [(None, None), (math.inf, None), (0, 0.0), (-1, 0.0), (2.5, 2.5)])
def test_timeout_of_a_wait(timeout: float | None, sent: float | None) -> None:
    """C36: a wait tells the host its timeout, and the client has a little more patience than that."""
    wait = operations.wait("x", "startup", timeout)
    assert wait.params["timeout"] == sent
    assert wait.timeout == (None if sent is None else sent + operations.GRACE)


def test_timeout_that_is_no_number() -> None:
    """A timeout of NaN is the caller's mistake."""
    with pytest.raises(ValueError, match="number of seconds"):
        operations.wait("x", "startup", math.nan)


def test_what_may_take_long() -> None:
    """Only what loads plugins and a wait without timeout may take for ever; what the host has in memory may not."""
    patient = {operation.method for operation in OPERATIONS if operation.timeout is None}
    assert patient == {"reload", "plan", "upgrade", "reexec"}


@pytest.mark.parametrize("answer", [{}, {"handle": None}, {"handle": "3"}, {"handle": [3, 2]}])
def test_answer_without_a_handle(answer: dict[str, Any]) -> None:
    """An answer that should have a handle and has none is the host's mistake, not a worker that was not found."""
    with pytest.raises(ProtocolError):
        operations.find("x").read(answer)


def test_handle_text() -> None:
    """A handle's text is slot and generation."""
    assert operations.parse_handle("3.2") == (3, 2)
    for text in ("", "3", "3.", ".2", "3.2.1", "-3.2", "+3.2", " 3.2", "3.٢", "a.b", "1" * 10 + ".1", "1." + "1" * 20):
        with pytest.raises(WorkerNotFound):
            operations.parse_handle(text)


def test_signal_names() -> None:
    """A signal goes by name; a number is translated, one that does not exist refused."""
    assert signal_name("SIGUSR1") == "SIGUSR1"
    assert signal_name(9) == "SIGKILL"
    with pytest.raises(ValueError, match="not a valid"):
        signal_name(9999)


@pytest.mark.parametrize(
    ("threaded", "asynchronous"),
    [(Client, AsyncClient), (BackgroundWorkerHandle, AsyncBackgroundWorkerHandle), (EventStream, AsyncEventStream)],
)
def test_twins(threaded: type, asynchronous: type) -> None:
    """The asyncio twin of each class has the same methods with the same parameters."""
    for name, member in inspect.getmembers(threaded, inspect.isfunction):
        if name.startswith("_") or (threaded is EventStream and name == "fileno"):
            continue  # fileno is for selectors, which asyncio has its own of
        twin = getattr(asynchronous, name)
        parameters = [(p.name, p.kind, p.default) for p in inspect.signature(member).parameters.values()]
        assert [(p.name, p.kind, p.default) for p in inspect.signature(twin).parameters.values()] == parameters, name
