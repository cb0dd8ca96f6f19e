"""A sample plugin with database workers: what PostgreSQL's module worker_spi does, in Python.

Each worker owns a schema with a table ``counted``. Insert a row ('total', 0), then rows
('delta', N): the worker adds the deltas up into the total and deletes them. The code is
meant to be read and copied; it shows how a worker

- has typed settings in workers.toml (``bgworker_settings``),
- is registered while the host starts (``bgworker_init``) or while it runs (``cli.py``),
- installs what it needs before it unblocks signals,
- connects to a database by name, or to the one in workers.toml,
- sets up its schema at its first start,
- sleeps on its latch, never in ``time.sleep()``: it wakes for SIGHUP and SIGTERM, and ends
  when the host dies,
- takes new settings after ``bgworker reload`` when it chooses,
- runs one transaction after another,
- shows in ``bgworker status`` what it does and waits for.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

import msgspec

from bgworker import BGW_NEVER_RESTART, DATABASE_WORKER_FLAGS, BackgroundWorker, BgWorkerStartTime, hookimpl, spi, worker

__all__ = ["MainArg", "Settings", "bgworker_init", "bgworker_settings", "dynamic_worker", "static_worker", "worker_spi_main"]

log = logging.getLogger(__name__)

#: Checks of the server's that a dynamic worker may skip: BGWORKER_BYPASS_ALLOWCONN and its kin.
BypassFlag = Literal["ALLOWCONN", "ROLELOGINCHECK"]
BYPASS_FLAGS: tuple[BypassFlag, ...] = get_args(BypassFlag)
#: The database when a role or a flag is named but no database, as in PostgreSQL's module.
DEFAULT_DATABASE = "postgres"

Naptime = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
TotalWorkers = Annotated[int, msgspec.Meta(ge=1, le=100)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """``[settings.worker_spi]`` in workers.toml. A wrong type, range or key is an error that names the line."""

    #: Seconds between two looks at the table.
    naptime: Naptime = 10.0
    #: How many static workers there are.
    total_workers: TotalWorkers = 2
    #: Database to connect to; left out, it is the one that [database] names.
    database: str | None = None
    #: Role to connect as; left out, it is the one that [database] names.
    role: str | None = None


class MainArg(msgspec.Struct, frozen=True, kw_only=True):
    """``bgw_main_arg``: any JSON value may be one, and a struct makes it a checked one."""

    #: The N of schemaN.
    index: Annotated[int, msgspec.Meta(ge=0)]
    #: These three are set for some dynamic workers; None and empty fall back to the settings.
    database: str | None = None
    role: str | None = None
    flags: list[BypassFlag] = []


@hookimpl
def bgworker_settings() -> type[Settings]:
    """Say what ``[settings.worker_spi]`` may hold."""
    return Settings


@hookimpl
def bgworker_init(registry: Any) -> None:
    """Register the static workers: more than one, to show how that is done."""
    for index in range(1, registry.settings.total_workers + 1):
        registry.register_background_worker(static_worker(index))


def static_worker(index: int) -> BackgroundWorker:
    """Return the registration of one static worker."""
    return BackgroundWorker(
        bgw_name=f"worker_spi worker {index}",
        bgw_type="worker_spi",
        # A database worker needs both flags; it starts when the database is read-write.
        bgw_flags=DATABASE_WORKER_FLAGS,
        bgw_start_time=BgWorkerStartTime.BgWorkerStart_RecoveryFinished,
        # PostgreSQL's module says BGW_NEVER_RESTART here. Left out, a static worker is restarted after one second.
        bgw_library_name="worker_spi",
        bgw_function_name="worker_spi_main",
        bgw_main_arg=msgspec.to_builtins(MainArg(index=index)),
    )


def dynamic_worker(
    index: int, database: str | None = None, role: str | None = None, flags: Sequence[BypassFlag] = ()
) -> BackgroundWorker:
    """Return the registration of one dynamic worker, for whoever has a connection to the host."""
    return BackgroundWorker(
        bgw_name=f"worker_spi dynamic worker {index}",
        bgw_type="worker_spi dynamic",
        bgw_flags=DATABASE_WORKER_FLAGS,
        bgw_start_time=BgWorkerStartTime.BgWorkerStart_RecoveryFinished,
        bgw_restart_time=BGW_NEVER_RESTART,
        bgw_library_name="worker_spi",
        bgw_function_name="worker_spi_main",
        bgw_main_arg=msgspec.to_builtins(MainArg(index=index, database=database, role=role, flags=list(flags))),
    )


def worker_spi_main(main_arg: Any) -> None:
    """The workers' function: it runs in the worker's own process until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s:  %(message)s")
    arg = msgspec.convert(main_arg, MainArg)
    # The index is a checked integer, so the name needs no quoting.
    schema = f"schema{arg.index}"
    name = worker.my_bgworker_entry().bgw_name

    # Signals are blocked up to here. A worker with handlers of its own installs them first; the default ones suit this worker.
    worker.unblock_signals()
    _connect(arg, worker.settings())
    log.info("%s initialized with %s.counted", name, schema)
    _initialize(schema)

    # The loop waits on the latch, resets it and heeds SIGTERM; the first pass comes at once. The time is asked for at each
    # wait, because a reload may have changed it.
    for _ in worker.latch_loop(timeout=lambda: worker.settings().naptime, wait_event="WorkerSpiMain"):
        if worker.config_reload_pending():
            worker.process_config_file()
        value = _consume_deltas(schema)
        if value is not None:
            log.info("%s: count in %s.counted is now %d", name, schema, value)


def _connect(arg: MainArg, settings: Settings) -> None:
    """Open the worker's one connection; what the argument leaves open, the settings decide."""
    database = arg.database or settings.database
    role = arg.role or settings.role
    if database is None and role is None and not arg.flags:
        worker.connect()
        return
    flags = 0
    for flag in arg.flags:
        flags |= getattr(worker, f"BGWORKER_BYPASS_{flag}")
    worker.initialize_connection(database or DEFAULT_DATABASE, role, flags)


def _initialize(schema: str) -> None:
    """Create the worker's schema unless it exists."""
    worker.report_activity("running", "initializing worker_spi schema")
    with spi.transaction():
        # Two workers with the same number would both see no schema: the second waits here for the first one's commit.
        spi.execute("SELECT pg_advisory_xact_lock(hashtext('worker_spi'), hashtext(%s))", [schema])
        # IF NOT EXISTS would demand the right to create schemas even where there is nothing to create.
        if spi.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema]).fetchone() is None:
            spi.execute(f"CREATE SCHEMA {schema}")
            spi.execute(f"CREATE TABLE {schema}.counted (type text CHECK (type IN ('total', 'delta')), value int4)")
            spi.execute(f"CREATE UNIQUE INDEX counted_unique_total ON {schema}.counted (type) WHERE type = 'total'")
    worker.report_activity("idle", "")


def _consume_deltas(schema: str) -> int | None:
    """Move the deltas into the total, in one statement; the new total, or None where no total was ever inserted."""
    statement = f"""
        WITH consumed AS (DELETE FROM {schema}.counted WHERE type = 'delta' RETURNING value),
             addition AS (SELECT coalesce(sum(value), 0) AS amount FROM consumed)
        UPDATE {schema}.counted AS counted SET value = counted.value + addition.amount
        FROM addition WHERE counted.type = 'total'
        RETURNING counted.value"""
    worker.report_activity("running", " ".join(statement.split()))
    with spi.transaction():
        row = spi.execute(statement).fetchone()
    worker.report_activity("idle", "")
    return None if row is None else row[0]
