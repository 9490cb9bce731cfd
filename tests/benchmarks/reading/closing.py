"""The indexes that partitions get when nothing more is written to them."""

from __future__ import annotations

from datetime import datetime, timedelta

from observatory_storage import StoragePool
from observatory_storage.partition_indexes import build_partition_indexes

__all__ = ["close_partitions"]


def close_partitions(pool: StoragePool, before: datetime) -> None:
    """Build the indexes of all partitions that end by this time; those that are there stay."""
    done = build_partition_indexes(pool, now=before, grace=timedelta(0))
    for failure in done.failed:
        raise failure.error
