"""The world of one soak: the host under test, what was done to it, and what is expected of it.

The expectations are a model from outside, in a handful of sentences: which static workers must
be up, which dynamic ones were neither terminated nor killed, that no worker runs twice, that
every process below the host is accounted for, and that numbered lines arrive in order.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bgworker.errors import HostError, NoFreeSlot
from bgworker.testing import RunningHost
from tests.soak.observe import children_of, helper, postgres

#: Longest time after the last fault until everything must be as expected, in seconds.
SETTLE_DEADLINE: Final = 60.0
#: How long a killed collector or a full disk may cost lines: a file that could not be written is tried once a second.
_LOSSY_TIME: Final = 3.0
_SMALL_DISK: Final = "64m"
_LINE: Final = re.compile(r"chatter: line (\d+) (\d+)\.$", re.MULTILINE)
#: Free to be in any state at any time: they end by themselves, and come back.
_RESTLESS: Final = frozenset({"exiter 0", "exiter 1"})

#: Processes without a slot that the host may keep.
SPARES: Final = 4

_CONFIGURATION: Final = f"""\
[host]
max_worker_processes = 24
spare_workers = {SPARES}
shutdown_timeout = 1.0
shared_preload_libraries = ["soak_workers"]
log = "files"
[database]
url = "embedded"
"""


class World:
    """One running host and the record of what may be expected of it."""

    def __init__(self) -> None:
        # Not below a private directory: PostgreSQL's own user must be able to pass through.
        self.directory = Path(tempfile.mkdtemp(prefix="bgworker-soak-"))
        self.directory.chmod(0o711)
        shutil.copy(Path(__file__).with_name("workers.py"), self.directory / "soak_workers.py")
        (self.directory / "locks").mkdir()
        self.host = RunningHost(self.directory, self.configuration("a"))
        self.static_names = ["steady 0", "steady 1", "stubborn", "exiter 0", "exiter 1", "chatter", "writer", "waker"]
        self.has_small_disk = self._mount_small_disk()
        self.violations: list[str] = []
        self.lost_lines = 0
        self._dynamic: dict[str, str] = {}
        self._later: list[tuple[float, Callable[[], object]]] = []
        self._keys = 0
        self._lossy_until = 0.0
        self._may_have_lost_lines = False
        self._log_position = 0
        self._last_line: dict[str, int] = {}
        self._generations: dict[int, int] = {}

    @property
    def pid(self) -> int:
        """The host's process."""
        assert self.host.process is not None
        return self.host.process.pid

    def configuration(self, variant: str) -> str:
        """Return a good workers.toml; the variants differ in what a reload can change."""
        workers: list[dict[str, Any]] = [
            {"bgw_name": "steady 0", "bgw_function_name": "steady"},
            {"bgw_name": "steady 1", "bgw_function_name": "steady", "bgw_extra": f'"{variant}"'},
            {"bgw_name": "stubborn", "bgw_function_name": "stubborn", "stop_timeout": 0.3},
            {"bgw_name": "exiter 0", "bgw_function_name": "exiter", "bgw_restart_time": 0},
            {"bgw_name": "exiter 1", "bgw_function_name": "exiter", "bgw_restart_time": 0.5 if variant == "a" else 0.7},
            {"bgw_name": "chatter", "bgw_function_name": "chatter"},
            {"bgw_name": "writer", "bgw_function_name": "writer", "bgw_restart_time": 0.5},
            {"bgw_name": "waker", "bgw_function_name": "waker", "wake_on": '["soak"]'},
        ]
        text = _CONFIGURATION
        for worker in workers:
            text += '[[worker]]\nbgw_library_name = "soak_workers"\nbgw_type = "soak"\n'
            for key, value in worker.items():
                is_plain = isinstance(value, int | float) or value.startswith(("[", '"'))
                text += f"{key} = {value}\n" if is_plain else f'{key} = "{value}"\n'
            if worker["bgw_name"] == "writer":
                text += 'bgw_flags = ["BGWORKER_SHMEM_ACCESS", "BGWORKER_BACKEND_DATABASE_CONNECTION"]\n'
        return text

    # -- what faults say ------------------------------------------------------------

    def next_key(self, kind: str) -> str:
        """Return a name that no registration had before."""
        self._keys += 1
        return f"{kind} {self._keys}"

    def expect_dynamic(self, handle: str, key: str) -> None:
        """Expect this worker to run until somebody ends it."""
        self._dynamic[handle] = key

    def forget_dynamic(self, handle: str) -> None:
        """Expect nothing of this worker any more."""
        self._dynamic.pop(handle, None)

    def dynamic_handles(self) -> list[str]:
        """Return the handles of the workers that must run."""
        return sorted(self._dynamic)

    def later(self, delay: float, act: Callable[[], object]) -> None:
        """Do something after a delay; settling waits for it."""
        self._later.append((time.monotonic() + delay, act))

    def start_later(self, name: str, delay: float) -> None:
        """Start a static worker after a delay, and again until it is accepted: it may still be leaving."""

        def start() -> None:
            try:
                with self.host.client() as client:
                    client.start(name)
                    if self._state_of(client.status(), name) == "terminating":
                        self.start_later(name, 0.1)
            except NoFreeSlot:
                self.start_later(name, 0.1)  # jobs are in its place, and end
            except HostError as error:
                self.violations.append(f"{name} could not be started again: {error}")

        self.later(delay, start)

    def excuse_lost_lines(self) -> None:
        """Allow lines to be missing: a killed collector loses what it had read, a full disk what does not fit."""
        self._lossy_until = time.monotonic() + _LOSSY_TIME

    def turn(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        due = [act for at, act in self._later if at <= now]
        self._later = [(at, act) for at, act in self._later if at > now]
        for act in due:
            act()

    # -- what must be true ----------------------------------------------------------

    def settle(self) -> int:
        """Wait until everything is as expected, or note what is not; return how many sentences were checked."""
        deadline = time.monotonic() + SETTLE_DEADLINE
        while True:
            self.turn()
            problems, checked = self._problems()
            if not problems and not self._later:
                break
            if time.monotonic() > deadline:
                self.violations += [f"{problem} {SETTLE_DEADLINE:g} s after the last fault" for problem in problems]
                break
            time.sleep(0.05)
        return checked + self._check_files()

    @staticmethod
    def _state_of(status: dict[str, Any], name: str) -> str:
        return next((slot["state"] for slot in status["slots"] if slot["bgw_name"] == name), "")

    def _problems(self) -> tuple[list[str], int]:
        """Return the sentences that are not true now, and how many were looked at."""
        try:
            status = self.host.status()
        except (HostError, OSError) as error:
            return [f"status was not answered: {error}"], 1
        slots = status["slots"]
        children = children_of(self.pid)
        known = {slot["pid"] for slot in slots} | {helper(self.pid, name) for name in ("loader", "collector", "database")}
        known.add(postgres(self.pid))
        running = {f"{slot['slot']}.{slot['generation']}" for slot in slots if slot["state"] == "started"}
        pids = [slot["pid"] for slot in slots if slot["pid"]]
        sentences = [
            (self.host.process is not None and self.host.process.poll() is None, "the host has ended"),
            (status["host"]["state"] == "run", f"the host is in state {status['host']['state']}"),
            (len(pids) == len(set(pids)), "two slots have one process"),
            (all(helper(self.pid, name) for name in ("loader", "collector", "database")), "a helper is missing"),
            (not (zombies := [c for c in children if c.is_zombie]), f"zombies are left: {zombies}"),
            (
                not (strangers := [c for c in children if c.pid not in known and not c.is_zombie and not c.is_spare]),
                f"processes without a slot are left: {strangers}",
            ),
            ((spares := sum(c.is_spare for c in children)) <= SPARES, f"{spares} spare workers, at most {SPARES} are kept"),
        ]
        for name in self.static_names:
            state = self._state_of(status, name)
            fine = ("started", "waiting_restart", "not_yet_started", "terminating") if name in _RESTLESS else ("started",)
            sentences.append((state in fine, f"static worker {name} is {state or 'gone'}"))
        for handle, key in self._dynamic.items():
            sentences.append((handle in running, f"{key} ({handle}) does not run, and nobody ended it"))
        for slot in slots:
            before = self._generations.get(slot["slot"], 0)
            sentences.append((slot["generation"] >= before, f"slot {slot['slot']} went from generation {before} to an earlier one"))
            self._generations[slot["slot"]] = slot["generation"]
            sentences.append(
                ((slot["state"] == "started") <= bool(slot["pid"]), f"{slot['bgw_name']} is started without a process")
            )
            healthy = slot["state"] == "started" or bool(slot["reason"])
            sentences.append((healthy, f"{slot['bgw_name']} is {slot['state']} for no reason"))
        return [problem for is_true, problem in sentences if not is_true], len(sentences)

    def _check_files(self) -> int:
        """Check what workers wrote down themselves, and the numbered lines of the log."""
        violations = self.directory / "violations"
        if violations.exists():
            self.violations += violations.read_text().splitlines()
            violations.unlink()
        jobs = self.directory / "jobs"
        keys = jobs.read_text().splitlines() if jobs.exists() else []
        self.violations += [f"{key} ran more than once" for key in {key for key in keys if keys.count(key) > 1}]
        jobs.unlink(missing_ok=True)
        self._check_lines()
        return len(keys) + 2

    def _check_lines(self) -> None:
        path = self.host.data_directory / "log" / "workers" / "chatter.log"
        try:
            text = path.read_bytes()[self._log_position :]
        except OSError:
            return
        text = text[: text.rfind(b"\n") + 1]
        self._may_have_lost_lines |= time.monotonic() < self._lossy_until
        self._log_position += len(text)
        for process, digits in _LINE.findall(text.decode(errors="replace")):
            number, last = int(digits), self._last_line.get(process, 0)
            if number <= last:
                self.violations.append(f"line {number} of the chatter ({process}) came after line {last}")
            elif number > last + 1:
                self.lost_lines += number - last - 1
                if not self._may_have_lost_lines:
                    self.violations.append(f"lines {last + 1} to {number - 1} of the chatter ({process}) are lost")
            self._last_line[process] = number
        # Lines of the lossy time may come to be looked at after it is over: the check after it excuses them, the next does not.
        self._may_have_lost_lines = time.monotonic() < self._lossy_until

    # -- the end --------------------------------------------------------------------

    def new_host(self) -> None:
        """Expect a new host: its generations and its dynamic workers start over."""
        self._dynamic.clear()
        self._generations.clear()
        self.excuse_lost_lines()

    def _mount_small_disk(self) -> bool:
        """Put the logs on a small file system of their own, if this user may mount one."""
        if os.geteuid() != 0:
            return False
        log = self.host.data_directory / "log"
        self.host.data_directory.mkdir(mode=0o711)
        log.mkdir(mode=0o700)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={_SMALL_DISK},mode=0700", "tmpfs", str(log)], check=False, capture_output=True
        )
        return mounted.returncode == 0

    def close(self) -> None:
        """Leave nothing behind."""
        for _at, act in self._later:
            with contextlib.suppress(Exception):
                act()
        self.host.close()
        if self.has_small_disk:
            subprocess.run(["umount", str(self.host.data_directory / "log")], check=False)
        shutil.rmtree(self.directory, ignore_errors=True)
