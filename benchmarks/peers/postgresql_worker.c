/*
 * The least background worker of PostgreSQL that can be measured: it writes one line to the beacon, as all workers do here,
 * and waits on its latch. Built by peers/postgresql.py; nothing else uses it.
 */
#include "postgres.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/wait_event.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void bench_main(Datum main_arg);
PG_FUNCTION_INFO_V1(bench_launch);
void _PG_init(void);

static char *beacon = NULL;
static int	static_workers = 0;

static int64
clock_now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return (int64) at.tv_sec * 1000000000 + at.tv_nsec;
}

void
bench_main(Datum main_arg)
{
	int64		at = clock_now();
	bool		connects = MyBgworkerEntry->bgw_extra[0] == 'c';
	char		line[64];
	int			fd;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	if (connects)
	{
		BackgroundWorkerInitializeConnection("postgres", NULL, 0);
		at = clock_now();
	}
	snprintf(line, sizeof(line), "%d %lld %d\n", DatumGetInt32(main_arg), (long long) at, MyProcPid);
	fd = open(beacon, O_WRONLY);
	if (fd < 0 || write(fd, line, strlen(line)) < 0)
		ereport(FATAL, (errmsg("could not write to \"%s\": %m", beacon)));
	close(fd);
	for (;;)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH, -1, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

static void
describe(BackgroundWorker *worker, int number, bool connects)
{
	memset(worker, 0, sizeof(*worker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | (connects ? BGWORKER_BACKEND_DATABASE_CONNECTION : 0);
	worker->bgw_start_time = connects ? BgWorkerStart_RecoveryFinished : BgWorkerStart_PostmasterStart;
	worker->bgw_restart_time = 0;
	snprintf(worker->bgw_library_name, BGW_MAXLEN, "%s", "postgresql_worker");
	snprintf(worker->bgw_function_name, BGW_MAXLEN, "bench_main");
	snprintf(worker->bgw_name, BGW_MAXLEN, "w%d", number);
	snprintf(worker->bgw_type, BGW_MAXLEN, "benchmark");
	worker->bgw_main_arg = Int32GetDatum(number);
	worker->bgw_extra[0] = connects ? 'c' : '-';
}

/* bench_launch(number int4, connects bool, waits bool) returns the pid, or 0 when it does not wait for it. */
Datum
bench_launch(PG_FUNCTION_ARGS)
{
	BackgroundWorker worker;
	BackgroundWorkerHandle *handle;
	pid_t		pid = 0;

	describe(&worker, PG_GETARG_INT32(0), PG_GETARG_BOOL(1));
	worker.bgw_notify_pid = MyProcPid;
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_RESOURCES), errmsg("no free slot")));
	if (PG_GETARG_BOOL(2) && WaitForBackgroundWorkerStartup(handle, &pid) != BGWH_STARTED)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_RESOURCES), errmsg("the worker did not start")));
	PG_RETURN_INT32(pid);
}

void
_PG_init(void)
{
	int			number;

	if (!process_shared_preload_libraries_in_progress)
		return;
	DefineCustomStringVariable("bench.beacon", "Where workers report.", NULL, &beacon, "", PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("bench.static_workers", "How many start with the server.", NULL, &static_workers, 0, 0, 100000,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	for (number = 0; number < static_workers; number++)
	{
		BackgroundWorker worker;

		describe(&worker, number, false);
		RegisterBackgroundWorker(&worker);
	}
}
