"""Slices of open partitions in tests, where a few rows are enough for one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest

from observatory_storage import StoragePool
from observatory_storage.lifecycle import open_slices
from observatory_storage.lifecycle.open_slices import IndexedSlice, index_open_partitions
from observatory_storage.lifecycle.run import Run
from observatory_storage.repositories.reading.indexed_slices import forget_slices


@contextmanager
def few_are_enough() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_slices, "_LEAST_BYTES", 1)
        patch.setattr(open_slices, "_LEAST_PART", 0)
        yield


def index_slices(pool: StoragePool, moments: Iterable[datetime]) -> list[IndexedSlice]:
    """Index what is finished at each of these times, however little it is."""
    indexed: list[IndexedSlice] = []
    with few_are_enough():
        for moment in moments:
            done = index_open_partitions(Run(pool, moment))
            assert done.is_complete, done
            indexed += done.indexed
    forget_slices(pool.engine)
    return indexed
