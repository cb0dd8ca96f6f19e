"""Random faults against a running host, for minutes or hours: ``make soak MINUTES=30 SEED=1``."""
