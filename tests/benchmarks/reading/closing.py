"""Builds the indexes of closed partitions."""

from __future__ import annotations

from datetime import datetime, timedelta

from observatory_storage import StoragePool
from observatory_storage.partition_indexes import build_partition_indexes

__all__ = ["close_partitions"]


def close_partitions(pool: StoragePool, before: datetime) -> None:
    """Build the missing indexes of all partitions that end by this time."""
    done = build_partition_indexes(pool, now=before, grace=timedelta(0))
    for failure in done.failed:
        raise failure.error
