"""The host process: the only composition root."""
