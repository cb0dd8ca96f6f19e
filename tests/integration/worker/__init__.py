"""The worker runtime in real processes, under a host that the test plays."""
