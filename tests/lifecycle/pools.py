"""Pools with a configuration of partitions, and what the catalog says of partitions."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from observatory_storage.config import (
    PartitionsConfig,
    PayloadsConfig,
    PoolConfig,
    PostgresConfig,
    RetentionConfig,
    RollupRetention,
    StorageConfig,
)
from observatory_storage.layout import Range, named
from observatory_storage.pool import StoragePool
from tests.writers.helpers import QUICK


def pool_with(url: str, username: str | None = None, **partitions: Any) -> StoragePool:
    """A pool with these settings of partitions, whose retries do not make a test wait."""
    given = {} if username is None else {"username": username}
    return StoragePool(
        StorageConfig(
            postgres=PostgresConfig.from_url(url, **given),
            pool=PoolConfig(min_connections=0, max_connections=20),
            partitions=PartitionsConfig(**partitions),
            retry=QUICK,
        )
    )


def ranges(pool: StoragePool, table: str) -> dict[str, Range]:
    """The ranges of the table's partitions by their suffixes, in order."""
    with pool.engine.begin() as connection:
        found = named(connection, pool.schema, table)
    in_order = sorted(found.items(), key=lambda item: item[1])
    return {name.removeprefix(f"{table}_"): held for name, held in in_order}


def scalar(pool: StoragePool, query: str, **values: Any) -> Any:
    with pool.engine.connect() as connection:
        return connection.scalar(sa.text(query), values)


def kept_pool(url: str, *, days: int) -> StoragePool:
    """A pool whose telemetry is kept for so many days, with large values in frames."""
    age = timedelta(days=days)
    return StoragePool(
        StorageConfig(
            postgres=PostgresConfig.from_url(url),
            pool=PoolConfig(min_connections=0, max_connections=20),
            partitions=PartitionsConfig(ahead=timedelta(days=3)),
            retention=RetentionConfig(
                traces=age,
                metrics=age,
                logs=age,
                rollups=RollupRetention(minute=timedelta(days=1), hour=age),
            ),
            payloads=PayloadsConfig(mode="compressed"),
            retry=QUICK,
        )
    )
