"""Readers of a cache never go back in time, whatever writers change and erase meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from pydantic import SecretStr

from observatory_storage import (
    CacheConfig,
    PoolConfig,
    PostgresConfig,
    RedisConfig,
    StorageConfig,
    StoragePool,
)
from tests.soak.cached_histories import Writer, run
from tests.soak.scale import scaled

CACHED = ("traces", "statistics")


@pytest.fixture
def pools() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("recheck", ["0s", "1h"])
def test_no_reader_goes_back_in_time(
    database_url: str, redis_url: str, pools: ExitStack, recheck: str
) -> None:
    made: list[StoragePool] = []

    def make() -> StoragePool:
        config = StorageConfig(
            postgres=PostgresConfig.from_url(database_url),
            pool=PoolConfig(max_connections=3, min_connections=0),
            redis=RedisConfig(url=SecretStr(redis_url)),
            cache=CacheConfig.model_validate(
                {
                    "traces_recheck": recheck,
                    # More threads than cores wait for each other.
                    "timeout_ms": 10_000,
                    "commit_timeout_ms": 10_000,
                }
            ),
        )
        made.append(pools.enter_context(StoragePool(config)))
        return made[-1]

    def hits(kind: str) -> int:
        return sum(pool.cache.stats().kinds[kind].hits for pool in made)

    def is_enough(writing: list[Writer]) -> bool:
        commits = sum(writer.commits for writer in writing)
        return commits > 20 and all(map(hits, CACHED))

    writers, readers = run(make, 8, 8, scaled(3.0, 60.0), is_enough)
    assert sum(pool.cache.stats().failed_invalidations for pool in made) == 0
    for kind in CACHED:
        print(f"{kind}: {hits(kind)} hits")
        assert hits(kind)
    assert sum(writer.commits for writer in writers) > 20
    print(f"{sum(reader.reads for reader in readers)} reads")
