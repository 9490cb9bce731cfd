"""Hooks are told of requests to the cache."""

from __future__ import annotations

from observatory_storage import CopyWriter, StoragePool
from observatory_storage.operations import StoreOperation
from tests.cache.reading import names, some_spans


def test_hooks_are_told_of_requests_to_the_cache(cached: StoragePool) -> None:
    seen: list[StoreOperation] = []
    cached.add_hook(seen.append)
    CopyWriter(cached).write_spans(some_spans())
    for _ in range(2):
        names(cached)
    told = [(one.table, one.method, one.outcome) for one in seen if one.operation == "cache"]
    assert told == [
        ("commits", "invalidate", "ok"),
        ("traces", "get", "miss"),
        ("traces", "set", "ok"),
        ("traces", "get", "hit"),
    ]
