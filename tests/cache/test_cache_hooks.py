"""Hooks are told of requests to the cache."""

from __future__ import annotations

from observatory_embedded import EmbeddedValkey
from observatory_storage import CopyWriter, StoragePool
from observatory_storage.operations import StoreOperation
from tests.cache.conftest import config_with
from tests.cache.reading import names, some_spans
from tests.cache.test_failures import until


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
    assert all(one.seconds > 0 for one in seen if one.operation == "cache")


def test_hooks_are_told_of_no_request_that_is_not_sent(
    database_url: str, embedded_redis: EmbeddedValkey
) -> None:
    seen: list[StoreOperation] = []
    config = config_with(database_url, embedded_redis.url, traces_recheck="0s")
    with StoragePool(config, hooks=[seen.append]) as pool:
        CopyWriter(pool).write_spans(some_spans())
        embedded_redis.stop()

        def reports() -> list[str]:
            gets = [one for one in seen if (one.operation, one.method) == ("cache", "get")]
            return [one.outcome for one in gets]

        def errors() -> int:
            return pool.cache.stats().kinds["traces"].errors

        until(lambda: bool(names(pool)) and errors() >= len(reports()) + 3)
        assert set(reports()) == {"error"}
