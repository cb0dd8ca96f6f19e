"""workers.toml of any content: a configuration, or errors in our words; never anything else."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings

from bgworker._config.load import parse_configuration
from bgworker.errors import ConfigurationError
from tests.fuzz.corpus import TIMES, mutated, seeds

PIECES = (
    b"\n[[worker]]\n", b"\n[host]\n", b"\n[worker]\n", b"=", b".", b"1e999", b"-1", b"true", b"[]", b"{}", b'""', b"'''", b'"""',
    b"\\ud800", b"\x00", b"\xff", b"nan", b"inf", b"9" * 400, b"1979-05-27T07:32:00Z", b"[" * 200, b"a.b.c.d = 1\n", b"bgw_name",
)  # fmt: skip


def check(data: bytes) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return  # refused where the file is read
    refusal: ConfigurationError | None = None
    try:
        parse_configuration(text, "/x/workers.toml", {})
    except ConfigurationError as error:
        refusal = error
    if refusal is not None:
        assert refusal.message_primary
        assert all("\x1b" not in line and "\n" not in line for line in refusal.lines())
        json.dumps(refusal.to_dict())


@pytest.mark.parametrize("seed", range(len(seeds("configuration"))))
def test_kept_files(seed: int) -> None:
    """Each file of the corpus is accepted, or refused in our words."""
    check(seeds("configuration")[seed])


@settings(max_examples=600 * TIMES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(mutated("configuration", PIECES))
def test_mutated_files(data: bytes) -> None:
    """T64: whatever a workers.toml holds is accepted, or refused in our words."""
    check(data)
