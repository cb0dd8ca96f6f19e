"""The JSON Schema of workers.toml: generated, kept in the repository, of use to an editor."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bgworker._config.checks import is_right
from bgworker._config.model import DatabaseSettings, EnvironmentReference, HostSettings, WorkerTable
from bgworker._config.schema import json_schema, schema_text
from bgworker._config.tables import expectations

COPY = Path(__file__).parents[3] / "workers.schema.json"
TABLES = [HostSettings, DatabaseSettings, EnvironmentReference, WorkerTable]


def properties(table: type) -> dict[str, Any]:
    found = json_schema()["definitions"][table.__name__]["properties"]
    assert isinstance(found, dict)
    return found


def test_copy_is_up_to_date() -> None:
    """workers.schema.json in the repository is what the code generates; `bgworker schema > workers.schema.json` renews it."""
    assert COPY.read_text(encoding="utf-8") == schema_text()


@pytest.mark.parametrize("table", TABLES)
def test_every_key_is_described(table: type) -> None:
    """Each key of each table has a description for editors, a sentence, and words for errors."""
    assert set(properties(table)) == set(table.__struct_fields__) == set(expectations(table))  # type: ignore[attr-defined]
    for key, schema in properties(table).items():
        assert schema["description"].endswith("."), key
        expected = expectations(table)[key]
        assert expected != "a table"
        assert expected[-1] not in ". "


def test_keys_that_nobody_knows_are_marked() -> None:
    """An editor marks a misspelt key in every table and at the top."""
    schema = json_schema()
    assert [table["additionalProperties"] for table in (schema, *schema["definitions"].values())] == [False] * 5


def test_toml_has_no_null() -> None:
    """Keys that may be left out are not offered as null."""
    assert "null" not in schema_text()


def test_references_resolve() -> None:
    """Every reference leads to a definition."""
    names = re.findall(r'"\$ref": "#/definitions/(\w+)"', schema_text())
    assert set(names) == set(json_schema()["definitions"])


def test_bounds() -> None:
    """What the code refuses by number or word, the schema refuses, too."""
    restart_time = properties(WorkerTable)["bgw_restart_time"]["anyOf"]
    assert {"type": "number", "minimum": 0, "maximum": 86400.0} in restart_time
    assert {"enum": ["BGW_NEVER_RESTART"]} in restart_time
    assert properties(WorkerTable)["bgw_name"]["maxLength"] == 95
    assert properties(WorkerTable)["bgw_extra"]["maxLength"] == 128
    assert properties(HostSettings)["max_worker_processes"]["minimum"] == 1
    assert json_schema()["definitions"]["WorkerTable"]["required"] == ["bgw_name"]
    assert json_schema()["definitions"]["DatabaseSettings"]["required"] == ["url"]


@pytest.mark.parametrize(
    "right", ["view", "operate", "register", "register:a", "register:a:b", "register:", "view:x", "x", "register:a:b:c"]
)
def test_pattern_of_rights(right: str) -> None:
    """The pattern that editors use and the check that decides agree."""
    pattern = properties(HostSettings)["control_allow"]["items"]["pattern"]
    assert (re.search(pattern, right) is not None) == is_right(right)
