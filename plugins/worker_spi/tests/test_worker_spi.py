"""What can be seen of worker_spi without a host: its settings, its registrations, and its loop on stand-ins for the faces."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import importlib_metadata
import msgspec
import pytest

import worker_spi
from bgworker import BGW_NEVER_RESTART, DATABASE_WORKER_FLAGS
from worker_spi import MainArg, Settings


class Registry:
    """What bgworker_init is given."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.workers: list[Any] = []

    def register_background_worker(self, worker: Any) -> None:
        """Keep the registration."""
        self.workers.append(worker)


class Faces:
    """Stands in for ``worker`` and ``spi``, and writes down what is asked of them."""

    BGWORKER_BYPASS_ALLOWCONN = 1
    BGWORKER_BYPASS_ROLELOGINCHECK = 2

    def __init__(
        self, turns: int = 1, settings: Settings | None = None, has_schema: bool = False, totals: Sequence[int | None] = ()
    ) -> None:
        self.calls: list[str] = []
        self.timeouts: list[float] = []
        self.activity: list[tuple[str, str]] = []
        self.pending_settings: Settings | None = None
        self._turns = turns
        self._settings = settings or Settings()
        self._has_schema = has_schema
        self._totals = list(totals)
        self._in_transaction = False

    def my_bgworker_entry(self) -> Any:
        """Say the worker's name."""
        return SimpleNamespace(bgw_name="worker_spi worker 3")

    def settings(self) -> Settings:
        """Give the settings in force."""
        return self._settings

    def unblock_signals(self) -> None:
        """Note it."""
        self.calls.append("unblock_signals")

    def connect(self) -> None:
        """Note it."""
        self.calls.append("connect")

    def initialize_connection(self, dbname: str | None, username: str | None, flags: int = 0) -> None:
        """Note it."""
        self.calls.append(f"initialize_connection {dbname} {username} {flags}")

    def report_activity(self, state: str, text: str) -> None:
        """Note it."""
        self.activity.append((state, text))

    def latch_loop(self, timeout: Callable[[], float], wait_event: str) -> Iterator[int]:
        """Turn so many times, the first time at once; outside of a transaction only."""
        assert wait_event == "WorkerSpiMain"
        for turn in range(self._turns):
            assert not self._in_transaction
            if turn:
                self.timeouts.append(timeout())
            self.calls.append("turn")
            yield 0

    def config_reload_pending(self) -> bool:
        """Say whether there are new settings."""
        return self.pending_settings is not None

    def process_config_file(self) -> None:
        """Take the new settings."""
        assert self.pending_settings is not None
        self._settings, self.pending_settings = self.pending_settings, None

    @contextmanager
    def transaction(self) -> Any:
        """Allow statements."""
        self._in_transaction = True
        yield
        self._in_transaction = False

    def execute(self, query: str, params: Sequence[Any] = ()) -> Any:
        """Note the statement; answer as the database would."""
        assert self._in_transaction
        text = " ".join(query.split())
        self.calls.append(text)
        if "pg_namespace" in text:
            assert list(params) == ["schema3"]
            return SimpleNamespace(fetchone=lambda: (1,) if self._has_schema else None)
        if text.startswith("WITH"):
            total = self._totals.pop(0)
            return SimpleNamespace(fetchone=lambda: None if total is None else (total,))
        return None


def run(monkeypatch: pytest.MonkeyPatch, faces: Faces, arg: Any = None) -> Faces:
    """Run the worker on the stand-ins until its loop is ended."""
    monkeypatch.setattr(worker_spi, "worker", faces)
    monkeypatch.setattr(worker_spi, "spi", faces)
    worker_spi.worker_spi_main(arg or {"index": 3})
    return faces


def test_static_workers_are_registered() -> None:
    """C41: bgworker_init registers total_workers static workers, as PostgreSQL's module names them."""
    registry = Registry(Settings(total_workers=3))
    worker_spi.bgworker_init(registry)
    assert [worker.bgw_name for worker in registry.workers] == [f"worker_spi worker {index}" for index in (1, 2, 3)]
    for index, worker in enumerate(registry.workers, 1):
        assert worker.bgw_type == "worker_spi"
        assert worker.bgw_flags == DATABASE_WORKER_FLAGS
        assert worker.bgw_library_name == "worker_spi"
        assert getattr(worker_spi, worker.bgw_function_name) is worker_spi.worker_spi_main
        assert worker.bgw_main_arg == {"index": index, "database": None, "role": None, "flags": []}


def test_dynamic_worker() -> None:
    """C41: the dynamic worker is never restarted, and carries its database, role and flags in its argument."""
    worker = worker_spi.dynamic_worker(4, "mydb", "myrole", ["ALLOWCONN"])
    assert (worker.bgw_name, worker.bgw_type) == ("worker_spi dynamic worker 4", "worker_spi dynamic")
    assert worker.bgw_restart_time == BGW_NEVER_RESTART
    assert worker.bgw_main_arg == {"index": 4, "database": "mydb", "role": "myrole", "flags": ["ALLOWCONN"]}


def test_settings_have_postgresqls_defaults() -> None:
    """C41: ten seconds and two workers, the database and role of [database]."""
    assert worker_spi.bgworker_settings() is Settings
    assert Settings() == Settings(naptime=10, total_workers=2, database=None, role=None)


@pytest.mark.parametrize(
    "table",
    [{"naptime": 0}, {"naptime": "10"}, {"total_workers": 0}, {"total_workers": 101}, {"total_workers": 1.5}, {"database": 1}],
)
def test_settings_are_checked(table: dict[str, Any]) -> None:
    """What PostgreSQL's module would refuse is refused."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(table, Settings)


@pytest.mark.parametrize("arg", [None, 3, {}, {"index": -1}, {"index": "1; DROP"}, {"index": 1, "flags": ["NOPE"]}])
def test_odd_arguments_are_refused(arg: Any) -> None:
    """The index becomes part of SQL, so nothing but an integer may be one."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(arg, MainArg)


def test_schema_is_set_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """C41: the first start creates schema, table and index in one transaction; a later one finds them."""
    fresh = run(monkeypatch, Faces(turns=0))
    assert [call.split(" (")[0] for call in fresh.calls if call.startswith("CREATE")] == [
        "CREATE SCHEMA schema3",
        "CREATE TABLE schema3.counted",
        "CREATE UNIQUE INDEX counted_unique_total ON schema3.counted",
    ]
    assert fresh.calls.index("unblock_signals") < fresh.calls.index("connect")
    again = run(monkeypatch, Faces(turns=0, has_schema=True))
    assert not [call for call in again.calls if call.startswith("CREATE")]


@pytest.mark.parametrize(
    ("arg", "settings", "call"),
    [
        ({}, {}, "connect"),
        ({}, {"database": "a", "role": "r"}, "initialize_connection a r 0"),
        ({}, {"database": "a"}, "initialize_connection a None 0"),
        ({"database": "b", "role": "s"}, {"database": "a", "role": "r"}, "initialize_connection b s 0"),
        ({"role": "s"}, {}, "initialize_connection postgres s 0"),
        ({"database": "b", "flags": ["ALLOWCONN", "ROLELOGINCHECK"]}, {}, "initialize_connection b None 3"),
        ({"flags": ["ROLELOGINCHECK"]}, {"database": "a"}, "initialize_connection a None 2"),
    ],
)
def test_connection(monkeypatch: pytest.MonkeyPatch, arg: dict[str, Any], settings: dict[str, Any], call: str) -> None:
    """C41: the argument decides database, role and flags, then the settings, then [database]."""
    faces = run(monkeypatch, Faces(turns=0, settings=Settings(**settings)), {"index": 3, **arg})
    assert [each for each in faces.calls if "connect" in each] == [call]


def test_loop_counts_and_logs(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """C41: each turn of the latch loop moves the deltas in one statement; a total is logged."""
    caplog.set_level(logging.INFO)
    faces = run(monkeypatch, Faces(turns=2, has_schema=True, totals=[None, 7]))
    turns = [call for call in faces.calls if call == "turn" or call.startswith("WITH")]
    assert [call.split()[0] for call in turns] == ["turn", "WITH"] * 2
    assert [message for message in caplog.messages if "count in" in message] == [
        "worker_spi worker 3: count in schema3.counted is now 7"
    ]
    assert [state for state, _text in faces.activity] == ["running", "idle"] * 3


def test_reload_changes_the_naptime(monkeypatch: pytest.MonkeyPatch) -> None:
    """C25: new settings are taken at the turn after SIGHUP."""
    faces = Faces(turns=3, has_schema=True, totals=[None, None, None])
    assert run(monkeypatch, faces).timeouts == [10.0, 10.0]
    faces = Faces(turns=2, has_schema=True, totals=[None, None])
    faces.pending_settings = Settings(naptime=0.5)
    assert run(monkeypatch, faces).timeouts == [0.5]


def test_entry_points() -> None:
    """The installed distribution offers the plugin and its command."""
    points = importlib_metadata.distribution("bgworker-worker-spi").entry_points
    assert {(point.group, point.name, point.value) for point in points} == {
        ("bgworker.plugins", "worker_spi", "worker_spi"),
        ("bgworker.commands", "worker-spi", "worker_spi.cli:group"),
    }
