"""The hooks at the end of a process, while other threads go on."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import pytest

from observatory_storage.pool import StoragePool
from observatory_storage.writers import LogWriter, process_hooks
from observatory_storage.writers.process_hooks import Buffering


class Growing(weakref.WeakSet[Buffering]):
    """Has got another writer the first time that it is iterated over."""

    has_grown = False

    def __iter__(self) -> Iterator[Buffering]:
        if not self.has_grown:
            self.has_grown = True
            raise RuntimeError("Set changed size during iteration")
        return super().__iter__()


def test_writers_are_closed_although_others_are_made_meanwhile(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = LogWriter(pool)
    monkeypatch.setattr(process_hooks, "_writers", Growing([writer]))
    process_hooks._close_all()
    assert writer.closed
    monkeypatch.setattr(process_hooks, "_writers", Growing([writer]))
    process_hooks._release_parent_files()
