"""A worker's channel under lines of any kind: the worker gets errors, or its end; the host and the others go on."""

from __future__ import annotations

import base64
from collections.abc import Callable

from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from bgworker import BackgroundWorker, BgwHandleStatus
from bgworker.testing import RunningHost
from tests.fuzz.corpus import TIMES, mutated, seeds

PIECES = (
    b"\n", b"{", b"}", b"[", b"]", b'"', b",", b":", b"null", b"-1", b"1e400", b"\\ud800", b"\xff", b"9" * 300, b"[" * 70,
    b'"type":"started"', b'"type":"start_failed"', b'"type":"exiting"', b'"type":"born"', b'"type":"assign"', b'"error":{}',
    b'"error":[]', b'"error":1', b'"id":1', b'"method":"settings"', b'"fds":2',
)  # fmt: skip

BABBLER = '''
import base64, os, socket, stat

def babble(arg):
    """Write to every socket that was inherited; one of them is the channel."""
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        try:
            if fd > 2 and stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.write(fd, base64.b64decode(arg))
        except OSError:
            pass
'''


def test_anything_on_the_channel(bgworker_host: Callable[..., RunningHost]) -> None:
    """Whatever a worker writes on its channel, its slot comes free again and the host serves the next one."""
    host = bgworker_host('[host]\nmax_worker_processes = 4\nshared_preload_libraries = ["babbler"]\n', babbler=BABBLER)
    with host.client() as client:

        @settings(
            max_examples=60 * TIMES, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
        )
        @given(st.lists(mutated("channel", PIECES), min_size=1, max_size=20).map(b"\n".join))
        def run(data: bytes) -> None:
            worker = BackgroundWorker(
                bgw_name="babbler",
                bgw_library_name="babbler",
                bgw_function_name="babble",
                bgw_main_arg=base64.b64encode(data[:8000] + b"\n").decode(),
            )
            handle = client.register_dynamic_background_worker(worker)
            assert handle.wait_for_shutdown(timeout=30).status is BgwHandleStatus.STOPPED

        for seed in seeds("channel"):
            run = example(seed)(run)
        run()
        client.ping()
    assert host.process is not None
    assert host.process.poll() is None
    assert "internal error" not in host.log()
