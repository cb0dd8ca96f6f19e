"""``bgworker worker-spi``: launch a dynamic worker, as PostgreSQL's SQL function worker_spi_launch() does.

Shows how a client registers a dynamic worker and what each status of its handle means.
Imported only when the command is called.
"""

from __future__ import annotations

import click

import bgworker
from bgworker import BackgroundWorkerHandle, BgwHandleStatus, HostError, HostNotRunning
from worker_spi import BYPASS_FLAGS, BypassFlag, dynamic_worker


@click.group(name="worker-spi")
def group() -> None:
    """Workers of the sample plugin worker_spi."""


@group.command()
@click.argument("number", metavar="N", type=click.IntRange(0, 2**31 - 1))
@click.option("--database", help="Database to connect to; the plugin's setting if left out.")
@click.option("--role", help="Role to connect as; the plugin's setting if left out.")
@click.option(
    "--flags", "flags", multiple=True, type=click.Choice(BYPASS_FLAGS), help="Skip a check of the server's. May be given twice."
)
@click.option("--timeout", type=click.FloatRange(0), help="Seconds to wait for the start; without it, as long as it takes.")
@click.option("-D", "--data-directory", metavar="DIR", help="The host's data directory.")
def launch(
    number: int,
    database: str | None,
    role: str | None,
    flags: tuple[BypassFlag, ...],
    timeout: float | None,
    data_directory: str | None,
) -> None:
    """Launch the dynamic worker N and print its pid.

    It works on schemaN. The command waits until the worker has been started.
    """
    worker = dynamic_worker(number, database, role, list(dict.fromkeys(flags)))
    # Every error of bgworker that leaves a command is printed, and knows its exit code: 5 for NoFreeSlot, 2 for another
    # RegistrationError, 3 for HostNotRunning, 4 for WaitTimeout, 1 for the rest.
    with bgworker.connect(data_directory) as client:
        handle = client.register_dynamic_background_worker(worker)
        status, pid = handle.wait_for_startup(timeout)
        click.echo(_outcome(worker.bgw_name, status, pid, handle))


def _outcome(name: str, status: BgwHandleStatus, pid: int | None, handle: BackgroundWorkerHandle) -> str:
    """Return what to print for a worker that started; every other status is an error."""
    match status:
        case BgwHandleStatus.STARTED:
            return str(pid)
        case BgwHandleStatus.STOPPED:
            # It never started, or is over already: the host knows why.
            last_exit = handle.last_exit()
            raise HostError(
                f'could not start background worker "{name}"',
                f"The reason: {last_exit.reason.rstrip('.')}." if last_exit else "",
                "More details may be available in its log; see bgworker logs.",
            )
        case BgwHandleStatus.POSTMASTER_DIED:
            raise HostNotRunning(f'cannot start background worker "{name}" without the host', "The host died meanwhile.")
        case BgwHandleStatus.NOT_YET_STARTED:
            # get_pid() can say this, wait_for_startup() cannot: it waits until it is no longer true.
            raise HostError(f'background worker "{name}" has not been started yet')
