"""Benchmarks: what bgworker adds to PostgreSQL and psycopg, measured beside them in the same run; `make bench-quick`."""
