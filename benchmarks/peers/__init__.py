"""The ways that are compared: bgworker, the floor (raw fork), and the peers that are present; one small adapter each."""

from __future__ import annotations

from typing import Final

from benchmarks.peers.bgworker import BgWorker
from benchmarks.peers.circus import Circus
from benchmarks.peers.forks import ForkServer, RawFork
from benchmarks.peers.pm2 import Pm2
from benchmarks.peers.postgresql import PostgreSQL
from benchmarks.peers.runit import Runit
from benchmarks.peers.s6 import S6
from benchmarks.peers.supervisord import Supervisord
from benchmarks.peers.way import Way

#: In the order of the tables.
WAYS: Final[tuple[type[Way], ...]] = (BgWorker, RawFork, PostgreSQL, Supervisord, Circus, S6, Runit, Pm2, ForkServer)
