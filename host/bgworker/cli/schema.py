"""``schema``: the JSON Schema of workers.toml, for editors."""

from __future__ import annotations

from bgworker.cli import _console
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import verb


@verb("schema", "bgworker schema > workers.schema.json")
def schema(_invocation: Invocation) -> None:
    """Print the JSON Schema of workers.toml, generated from the code.

    Editors with a TOML language server complete and check keys with it.
    """
    from bgworker._config.schema import schema_text

    _console.say(schema_text().rstrip("\n"))
