"""The phases of a database, as the host hears them. Pure."""

from __future__ import annotations

import enum


class Phase(enum.Enum):
    """What the host hears about the database."""

    #: It is being created or started, or nothing is known yet.
    STARTING = "starting"
    #: It answers read-only queries: a standby.
    CONSISTENT = "consistent"
    #: It is read-write.
    RECOVERY_FINISHED = "recovery_finished"
    #: It does not answer; the detail says why and when it is tried again.
    UNREACHABLE = "unreachable"
