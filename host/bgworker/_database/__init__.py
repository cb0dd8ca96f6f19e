"""The database process: runs or watches PostgreSQL and reports its phase.

A program of its own (``python -m bgworker._database``), one thread, event-driven: nothing here
blocks for long and, once the database is read-write, nothing here wakes up without a cause.
Only the program itself imports this room; the host talks to it over its channel.

    __main__    the program
    process     composition: messages in, parts driven, messages out
    waits       selector and timers
    watch       one connection that knows the server's phase
    listen      one connection per database that LISTENs for wake_on
    session     one libpq connection that never blocks; addresses resolves its host names
    conninfo    connection strings: defaults, public form, secrets
    server      the life of the embedded PostgreSQL: initdb, birth, adoption, crash, stop
    plan        what a start of it needs: binaries, identity, places, binds
    binaries, identity, places, cluster, enter, lockfile, logfile: one fact each of that plan
"""
