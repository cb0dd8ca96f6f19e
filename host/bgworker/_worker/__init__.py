"""Inside a worker process: latch, interrupts, activity, connection, exit wrapper."""
