"""JSON Schema of workers.toml, for editors; generated from ``model.py``, so that it cannot lag behind.

``bgworker schema`` prints it, and workers.schema.json at the root of the repository is a copy.
Draft 7, the newest that TOML language servers (taplo) read.
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from bgworker._config.model import ConfigurationTables

_REFERENCE: Final = "#/definitions/{name}"


def json_schema() -> dict[str, Any]:
    """Return the schema of a whole file."""
    _, definitions = msgspec.json.schema_components((ConfigurationTables,), ref_template=_REFERENCE)
    for definition in definitions.values():
        # The text of the class, not its name, is what an editor shows above a table.
        definition.pop("title", None)
        for key, value in definition.get("properties", {}).items():
            definition["properties"][key] = _without_null(value)
    root = definitions.pop(ConfigurationTables.__name__)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "workers.toml of bgworker",
        **root,
        "definitions": dict(sorted(definitions.items())),
    }


def schema_text() -> str:
    """Return the schema as ``workers.schema.json`` holds it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a key's schema without null, which TOML does not have: a key that may be None is left out."""
    schema = dict(schema)
    if schema.get("default", ...) is None:
        del schema["default"]
    choices = [choice for choice in schema.pop("anyOf", []) if choice != {"type": "null"}]
    if len(choices) == 1:
        schema.update(choices[0])
        return schema
    return schema | {"anyOf": choices} if choices else schema
