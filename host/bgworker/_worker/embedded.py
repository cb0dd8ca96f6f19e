"""Sees that a worker with a user of its own can reach the embedded PostgreSQL, before it starts.

The server lets everybody in as superuser who reaches its socket (``trust``), so the socket's
directory is its only guard: open to the user that the server runs as, and to root.
"""

from __future__ import annotations

import os
import pwd

from bgworker._text import printable
from bgworker._worker.runtime import Runtime
from bgworker.errors import HostError


def check_reach(this: Runtime) -> None:
    """Raise what keeps the worker from the embedded server, if it asks for a database and is not the host's user.

    Raises:
        HostError: The directory of the server's socket is closed to the worker's user.
    """
    user, database = this.worker.user, this.database
    if user is None or database is None or database.kind != "embedded" or not database.conninfo:
        return
    from psycopg.conninfo import conninfo_to_dict

    directory = str(conninfo_to_dict(database.conninfo).get("host") or "")
    if not directory.startswith("/") or os.access(directory, os.X_OK):
        return
    raise HostError(
        f'user "{printable(user)}" cannot reach the embedded PostgreSQL',
        f'The directory of its socket is open to user "{_owner(directory)}" and root alone: whoever reaches it is superuser.',
        "Name that user in user, leave user out, or use a server of your own: url in [database].",
    )


def _owner(directory: str) -> str:
    try:
        uid = os.stat(directory).st_uid
    except OSError:
        return "of the server"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
