"""The name that a process of ours shows, which is worth nobody's life."""

from __future__ import annotations

import errno
import sys
from importlib.abc import MetaPathFinder

import pytest

from bgworker._process.helper import set_title


class _NoDescriptorLeft(MetaPathFinder):
    def find_spec(self, *_arguments: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")


def test_without_a_descriptor_there_is_no_title(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that has just executed itself anew, and is at the limit of its descriptors, lives on under its old name."""
    monkeypatch.delitem(sys.modules, "setproctitle", raising=False)
    monkeypatch.setattr(sys, "meta_path", [_NoDescriptorLeft()])
    set_title("bgworker: test")
    assert "setproctitle" not in sys.modules
