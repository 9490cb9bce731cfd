"""Makes partitions before rows need them, also for writers whose role may not make any."""

from __future__ import annotations

from dataclasses import dataclass

from observatory_storage.layout import PARTITIONED
from observatory_storage.lifecycle.run import Run
from observatory_storage.serialization import Result

__all__ = ["AheadPartitions", "make_partitions_ahead"]


@dataclass(frozen=True, slots=True)
class AheadPartitions(Result):
    """The result of `make_partitions_ahead`.

    Attributes:
        made: the names of the partitions that this run made.
        is_complete: whether the deadline left time for all tables.
    """

    made: tuple[str, ...] = ()
    is_complete: bool = True


def make_partitions_ahead(run: Run) -> AheadPartitions:
    """Make the partitions of each table from now until ``partitions.ahead`` from now.

    The role owns the tables, or is a member of the role that does, and may CREATE in the schema.
    Nobody waits for it but others who make partitions.

    Raises:
        StorageError: the role may not make partitions, or PostgreSQL cannot be reached.
    """
    made: list[str] = []
    for table in PARTITIONED:
        if run.deadline.is_over:
            return AheadPartitions(tuple(made), is_complete=False)
        ahead = run.source.config.partitions.ahead
        new = run.source.partitions.cover(table, run.now, run.now + ahead, run.now)
        for name in new:
            run.progress(f"made {name}")
        made += new
    return AheadPartitions(tuple(made))
