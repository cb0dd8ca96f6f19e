"""The faults of the soak: one function each, which does something bad and says what it did.

A fault may kill, stop, flood, fill and break everything but the host itself; what must be
true afterwards is for ``expectations``. Each gets the world and its random generator, so that a
seed gives the same faults again, though not the same moments.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bgworker import BackgroundWorker
from bgworker.errors import HostError, NoFreeSlot
from tests.soak.observe import helper, postgres

if TYPE_CHECKING:
    from tests.soak.world import World

Fault = Callable[["World", random.Random], str]

#: Dynamic workers that stay until they are terminated.
MAX_SITTERS: Final = 12
_GARBAGE: Final = (
    b"\xff\xfe\x00garbage\n",
    b"[" * 60_000 + b"\n",
    b'{"id":1,"method":"status","params":{"a":' + b"9" * 5000 + b"}}\n",
    b'{"id":1,"id":2,"method":"ping"}\n',
    b'{"id":NaN,"method":"ping"}\n',
    b'{"id":"\\ud800","method":"terminate","params":{"name":"\\ud800"}}\n',
    b'{"id":1,"method":"__class__","params":{}}\n',
    b'{"id":1,"method":"register","params":{"worker":{"bgw_name":7}}}\n',
    b"x" * 200_000,
)


def _kill(pid: int | None, signum: int) -> bool:
    """Send a signal to a process of the host; it may just have gone."""
    if pid is None:
        return False
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return False
    return True


def kill_worker(world: World, rng: random.Random) -> str:
    """Send one worker a signal that ends it, or should."""
    slots = [slot for slot in world.host.status()["slots"] if slot["pid"] and slot["state"] == "started"]
    if not slots:
        return "no worker to kill"
    slot = rng.choice(slots)
    signum = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGQUIT, signal.SIGTERM])
    # A dynamic worker that never restarts is forgotten when it ends; the expectation goes first.
    world.forget_dynamic(f"{slot['slot']}.{slot['generation']}")
    _kill(slot["pid"], signum)
    return f"{signal.Signals(signum).name} to {slot['bgw_name']} ({slot['pid']})"


def stop_worker(world: World, rng: random.Random) -> str:
    """Stop a worker's process and let it go on a little later."""
    slots = [slot for slot in world.host.status()["slots"] if slot["pid"]]
    if not slots:
        return "no worker to stop"
    slot = rng.choice(slots)
    if _kill(slot["pid"], signal.SIGSTOP):
        world.later(rng.uniform(0.1, 2.0), lambda: _kill(slot["pid"], signal.SIGCONT))
    return f"SIGSTOP to {slot['bgw_name']} ({slot['pid']})"


def kill_helper(world: World, rng: random.Random) -> str:
    """Kill the loader, the collector or the database process."""
    name = rng.choice(["loader", "collector", "database"])
    if name == "collector":
        world.excuse_lost_lines()
    pid = helper(world.pid, name)
    _kill(pid, signal.SIGKILL)
    return f"SIGKILL to the {name} ({pid})"


def stop_helper(world: World, rng: random.Random) -> str:
    """Stop the loader or the database process for a moment."""
    name = rng.choice(["loader", "database", "collector"])
    pid = helper(world.pid, name)
    if _kill(pid, signal.SIGSTOP):
        world.later(rng.uniform(0.1, 1.5), lambda: _kill(pid, signal.SIGCONT))
    return f"SIGSTOP to the {name} ({pid})"


def kill_postgres(world: World, rng: random.Random) -> str:
    """Crash the embedded PostgreSQL."""
    pid = postgres(world.pid)
    _kill(pid, rng.choice([signal.SIGKILL, signal.SIGQUIT]))
    return f"PostgreSQL ({pid}) killed"


def register_storm(world: World, rng: random.Random) -> str:
    """Register more workers than there may be slots for; some end by themselves, some stay, some cannot start."""
    granted = refused = 0
    with world.host.client() as client:
        for _ in range(rng.randint(1, 30)):
            kind = rng.choice(["job", "job", "sitter", "missing"])
            if kind == "sitter" and len(world.dynamic_handles()) >= MAX_SITTERS:
                kind = "job"  # those that stay must leave room for the static ones, some of which are down for the moment
            key = world.next_key(kind)
            try:
                handle = client.register_dynamic_background_worker(
                    BackgroundWorker(
                        bgw_name=key,
                        bgw_type=f"soak {kind}",
                        bgw_library_name="soak_workers" if kind != "missing" else "soak_no_such_module",
                        bgw_function_name=kind,
                        bgw_main_arg=key,
                    )
                )
            except NoFreeSlot:
                refused += 1
                continue
            granted += 1
            if kind == "sitter":
                world.expect_dynamic(str(handle), key)
    return f"{granted} registrations, {refused} refused"


def terminate_storm(world: World, rng: random.Random) -> str:
    """Terminate dynamic workers, most of them while they are starting or leaving."""
    handles = world.dynamic_handles()
    chosen = rng.sample(handles, rng.randint(0, len(handles)))
    with world.host.client() as client:
        for handle in chosen:
            world.forget_dynamic(handle)
            client.terminate(handle)
            if rng.random() < 0.3:
                client.terminate(handle)
    return f"{len(chosen)} terminated"


def wishes(world: World, rng: random.Random) -> str:
    """Restart and start static workers at random."""
    names = [rng.choice(world.static_names) for _ in range(rng.randint(1, 10))]
    with world.host.client() as client:
        for name in names:
            with contextlib.suppress(HostError):
                rng.choice([client.restart, client.restart, client.start])(name)
    return f"wishes for {', '.join(sorted(set(names)))}"


def terminate_static(world: World, rng: random.Random) -> str:
    """Terminate a static worker and start it again."""
    name = rng.choice(world.static_names)
    with world.host.client() as client:
        with contextlib.suppress(HostError):
            client.terminate(name)
        world.start_later(name, rng.uniform(0.0, 1.0))
    return f"terminate and start of {name}"


def reload(world: World, rng: random.Random) -> str:
    """Reload: a changed file, a broken one, a plugin that does not import, or several at once."""
    kind = rng.choice(["change", "change", "syntax", "value", "plugin", "signals"])
    good = world.configuration(rng.choice(["a", "b"]))
    if kind == "syntax":
        text = good + "\n[[worker]\n"
    elif kind == "value":
        text = good + '\n[[worker]]\nbgw_name = "steady 0"\nbgw_restart_time = -7\n'
    elif kind == "plugin":
        text = good.replace('"soak_workers"', '"soak_workers", "soak_no_such_plugin"')
    else:
        text = good
    world.host.config_path.write_text(text)
    if kind == "signals":
        for _ in range(rng.randint(2, 20)):
            _kill(world.pid, signal.SIGHUP)
    else:
        with world.host.client() as client, contextlib.suppress(HostError):
            client.reload()
    world.host.config_path.write_text(good)
    return f"reload ({kind})"


def garbage(world: World, rng: random.Random) -> str:
    """Connect again and again, and say nothing, nonsense, too much, or leave in the middle."""
    path = str(world.host.data_directory / "run" / "control.sock")
    kinds = [rng.choice(["silent", "nonsense", "half", "deaf"]) for _ in range(rng.randint(1, 40))]
    for kind in kinds:
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(2)
        try:
            peer.connect(path)
            if kind == "nonsense":
                peer.sendall(rng.choice(_GARBAGE))
            elif kind == "half":
                peer.sendall(b'{"id":1,"method":"sta')
            elif kind == "deaf":
                peer.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    for _ in range(200):
                        peer.sendall(b'{"id":1,"method":"status","params":{}}\n')
        except OSError:
            pass  # refused or cut off, which is the host's right
        if kind == "nonsense" or rng.random() < 0.5:
            peer.close()
        else:
            world.later(rng.uniform(0.1, 3.0), peer.close)
    return f"{len(kinds)} hostile clients"


def vanishing_client(world: World, rng: random.Random) -> str:
    """A client that registers and is gone before it is answered."""
    key = world.next_key("job")
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(5)
        peer.connect(str(world.host.data_directory / "run" / "control.sock"))
        peer.recv(65_536)  # greeted: what it says now is heard
        peer.sendall(
            b'{"id":1,"method":"register","params":{"worker":{"bgw_name":"%s","bgw_library_name":"soak_workers",'
            b'"bgw_function_name":"job","bgw_main_arg":"%s"}}}\n' % (key.encode(), key.encode())
        )
    return "a client registered and left"


def full_disk(world: World, rng: random.Random) -> str:
    """Fill the file system of the logs for a moment."""
    if not world.has_small_disk:
        return "no small file system for the logs"
    world.excuse_lost_lines()
    filler = world.host.data_directory / "log" / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(b"\0" * 65_536)
            file.flush()

    def empty() -> None:
        filler.unlink(missing_ok=True)
        world.excuse_lost_lines()

    world.later(rng.uniform(0.2, 2.0), empty)
    return "the logs' file system is full"


def lost_logs(world: World, rng: random.Random) -> str:
    """Remove the log of some worker."""
    logs = sorted((world.host.data_directory / "log" / "workers").glob("soak*.log"))
    if logs:
        rng.choice(logs).unlink(missing_ok=True)
    return "a log was removed"


def signal_storm(world: World, rng: random.Random) -> str:
    """Signals that mean nothing to the host, by the hundred."""
    for _ in range(300):
        _kill(world.pid, rng.choice([signal.SIGUSR1, signal.SIGCHLD, signal.SIGUSR1]))
    return "300 signals to the host"


def quiet(world: World, rng: random.Random) -> str:
    """Nothing for a moment: what is only wrong at rest shows at rest."""
    time.sleep(rng.uniform(0.1, 1.0))
    return "nothing"


#: How often each comes, relative to the others.
def reexec(world: World, rng: random.Random) -> str:
    """Have the host execute itself anew, by its command or by a signal; everything else goes on meanwhile."""
    if rng.random() < 0.3:
        assert world.host.process is not None
        _kill(world.host.process.pid, signal.SIGUSR2)
        return "SIGUSR2 to the host"
    try:
        with world.host.client() as client:
            return f"executed the host anew, blind for {client.reexec()['blind_ms']} ms"
    except HostError as error:
        return f"the host was not executed anew: {error.message_primary}"


FAULTS: Final[dict[Fault, int]] = {
    kill_worker: 12,
    stop_worker: 4,
    kill_helper: 6,
    stop_helper: 3,
    kill_postgres: 1,
    register_storm: 10,
    terminate_storm: 8,
    wishes: 6,
    terminate_static: 4,
    reload: 5,
    reexec: 2,
    garbage: 5,
    vanishing_client: 3,
    full_disk: 1,
    lost_logs: 1,
    signal_storm: 1,
    quiet: 3,
}


def choose(rng: random.Random) -> Fault:
    """Return the next fault."""
    return rng.choices(list(FAULTS), weights=list(FAULTS.values()))[0]
