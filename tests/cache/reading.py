"""What tests read, and what the cache has counted meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import redis

from observatory_storage import StoragePool
from tests.repositories.samples import START, a_span, an_event, trace_key

__all__ = [
    "KEY",
    "Counted",
    "content_of",
    "counting",
    "key_of_trace",
    "names",
    "some_spans",
    "span_count",
    "stored_keys",
]

KEY = trace_key(1)


class Counted(dict[str, int]):
    """By how much the counters of a kind have grown."""


@contextmanager
def counting(pool: StoragePool, kind: str) -> Iterator[Counted]:
    """Count what the cache of this process does with a kind. Only numbers above zero are given."""
    counted = Counted()
    before = pool.cache.stats().kinds[kind].to_dict()
    yield counted
    after = pool.cache.stats().kinds[kind].to_dict()
    counted.update({name: n - before[name] for name, n in after.items() if n > before[name]})


def some_spans(trace: int = 1, count: int = 3, **columns: Any) -> list[dict[str, Any]]:
    """Spans of one trace, a second apart, with attributes and an event."""
    return [
        a_span(
            trace,
            number,
            START + timedelta(seconds=number),
            **{
                "attributes": {"number": number, "list": [1, {"deep": "é"}], "float": 1.0},
                "resource_attributes": {"service.name": "shop"},
                "events": [an_event(f"event {number}", attempt=number)],
                **columns,
            },
        )
        for number in range(1, count + 1)
    ]


def names(pool: StoragePool, key: str = KEY) -> list[str]:
    """The names of a trace's spans."""
    with pool.unit_of_work() as uow:
        return [span.name for span in uow.traces.get_spans(key)]


def span_count(pool: StoragePool) -> int:
    """The number of all spans, from the statistics."""
    with pool.unit_of_work() as uow:
        return sum(one.span_count for one in uow.traces.get_stats(group_by=()))


def stored_keys(client: redis.Redis) -> list[bytes]:
    """The keys of all caches on the server."""
    return [bytes(key) for key in client.scan_iter(match="observatory:*")]


def key_of_trace(client: redis.Redis, key: str = KEY) -> bytes:
    """The key of a cached trace."""
    (found,) = client.scan_iter(match=f"*:t:{key}")
    return bytes(found)


def content_of(client: redis.Redis, key: bytes) -> bytes:
    """A stored value."""
    content = client.get(key)
    assert isinstance(content, bytes)
    return content
