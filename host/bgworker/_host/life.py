"""A host's loop turned until its end, whatever that is: for one that starts, and for one that has executed itself anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bgworker._host.host import Host


def live(host: Host) -> int:
    """Have a host turn its loop until it ends; return the exit code. Closes it."""
    try:
        return host.run()
    except Exception:
        # Our own mistake. Children die with this process; what happened must not be lost with it.
        import traceback  # not before: every import holds up a host that executes itself anew

        traceback.print_exc()
        host.log("FATAL", "internal error of the host, every worker ends with it", traceback.format_exc())
        # No turn follows in which this, and what was said just before it, would leave for the collector.
        host.loop.settle()
        return 1
    finally:
        host.close()
