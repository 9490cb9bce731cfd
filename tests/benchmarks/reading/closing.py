"""Builds the indexes of closed partitions, and those of slices of the open one."""

from __future__ import annotations

from datetime import datetime, timedelta

from observatory_storage import StoragePool
from observatory_storage.lifecycle.open_slices import index_open_partitions
from observatory_storage.lifecycle.run import Run
from observatory_storage.partition_indexes import build_partition_indexes

__all__ = ["close_partitions", "index_open_day"]


def close_partitions(pool: StoragePool, before: datetime) -> None:
    """Build the missing indexes of all partitions that end by this time."""
    done = build_partition_indexes(pool, now=before, grace=timedelta(0))
    for failure in done.failed:
        raise failure.error


def index_open_day(pool: StoragePool, day: datetime) -> None:
    """Index the partitions of a day as maintenance does while it passes, until shortly before."""
    for hour in range(1, 25):
        done = index_open_partitions(Run(pool, day + timedelta(hours=hour, minutes=-5)))
        for failure in done.failed:
            raise failure.error
