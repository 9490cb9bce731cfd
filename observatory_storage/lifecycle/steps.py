"""The steps of maintenance, in the order in which a run takes them."""

from __future__ import annotations

from typing import Final

from observatory_storage.lifecycle.closing import close_partitions
from observatory_storage.lifecycle.maintenance import Step
from observatory_storage.lifecycle.open_slices import index_open_partitions
from observatory_storage.lifecycle.partitions_ahead import make_partitions_ahead
from observatory_storage.lifecycle.payload_index import index_payloads
from observatory_storage.lifecycle.payload_moves import convert_stored_payloads
from observatory_storage.lifecycle.retention import apply_retention
from observatory_storage.lifecycle.rollup_expiry import ExpiredRollups, expire_rollups
from observatory_storage.lifecycle.rollups import refresh_rollups
from observatory_storage.lifecycle.run import Run
from observatory_storage.lifecycle.splitting import split_partitions
from observatory_storage.lifecycle.usage import settle_marked_usage
from observatory_storage.lifecycle.vacuuming import vacuum_tables

__all__ = ["STEPS"]


def _expire_rollups(run: Run) -> ExpiredRollups:
    kept = run.source.config.retention.rollups
    return expire_rollups(run, minute=kept.minute, hour=kept.hour, day=kept.day)


STEPS: Final[tuple[Step, ...]] = (
    # Writers that own nothing need the partitions, and readers the numbers.
    ("make_partitions_ahead", make_partitions_ahead),
    ("settle_usage", settle_marked_usage),
    ("refresh_rollups", refresh_rollups),
    # Whatever goes need not be split, indexed and frozen first.
    ("apply_retention", apply_retention),
    ("expire_rollups", _expire_rollups),
    # New frames are to be indexed, and the space of former rows to be freed.
    ("convert_payloads", convert_stored_payloads),
    ("index_payloads", index_payloads),
    ("vacuum_tables", vacuum_tables),
    ("split_partitions", split_partitions),
    ("index_open_partitions", index_open_partitions),
    ("close_partitions", close_partitions),
)
