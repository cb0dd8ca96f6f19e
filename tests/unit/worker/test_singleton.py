"""_worker/singleton.py: names, keys and sentences; the lock itself is tested in tests/integration/worker."""

from __future__ import annotations

import pytest

from bgworker._worker.singleton import CLIENT_SETTINGS, SERVER_SETTINGS, Holder, application_name, lock_key


def test_application_name_keeps_the_host() -> None:
    """63 bytes of ASCII are all that the server takes: the name is cut, the host is not."""
    assert application_name("orders", "db-7.example") == "orders on db-7.example"
    assert application_name("Zähler", "h") == "Z?hler on h"
    long = application_name("x" * 95, "a-host-whose-name-has-about-fifty-bytes-in-it.example")
    assert len(long) == 63
    assert long.endswith(" on a-host-whose-name-has-about-fif")


def test_lock_key_is_stable() -> None:
    """The key must be the same on every host and in every version: what is documented is what is computed."""
    assert lock_key("only") == 5_052_567_964_494_684_351
    assert lock_key("other") != lock_key("only")


@pytest.mark.parametrize(
    ("holder", "expected"),
    [
        (Holder(False, 7, "orders on web-1", "10.0.0.1", "2026-01-01T00:00:00Z"),
         'held by "orders" on host web-1 (backend PID 7, connected since 2026-01-01T00:00:00Z)'),
        (Holder(False, 7, "a on b on web-1", "", ""), 'held by "a on b" on host web-1 (backend PID 7)'),
        (Holder(False, 7, "psql", "10.0.0.1", ""), 'held by "psql" (backend PID 7)'),
        (Holder(False, 7, "sitting on a chair", "", ""), 'held by "sitting on a chair" (backend PID 7)'),
        (Holder(False, 7, "", "10.0.0.1", ""), "held by a session from 10.0.0.1 (backend PID 7)"),
        (Holder(False, 7, "", "", ""), "held by another session (backend PID 7)"),
    ],
)  # fmt: skip
def test_reason_says_what_is_known(holder: Holder, expected: str) -> None:
    """The holder's name and machine as far as this role may see them, and the backend in any case."""
    assert holder.reason() == f"waits for singleton lock {expected}; starts when it is free"


def test_worker_notices_before_the_server_does() -> None:
    """Cut off from the server, the old instance ends before the server gives its lock to the next."""
    client = [float(CLIENT_SETTINGS[f"keepalives_{key}"]) for key in ("idle", "interval", "count")]
    server = [float(SERVER_SETTINGS[f"tcp_keepalives_{key}"]) for key in ("idle", "interval", "count")]
    assert client[0] + client[1] * client[2] < server[0] + server[1] * server[2]
    assert CLIENT_SETTINGS["tcp_user_timeout"] < int(SERVER_SETTINGS["tcp_user_timeout"])
