"""Rows of a day that is over and of one that is not, and the indexes that the closed day gets."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from observatory_storage import CopyWriter, IndexBuild, StoragePool, build_partition_indexes
from tests.repositories.samples import DAY, a_log, a_span, an_event

# Of late, for partitions of a day.
TODAY = (datetime.now(UTC) - 7 * DAY).replace(hour=0, minute=0, second=0, microsecond=0)
START = TODAY + DAY / 2
NOW = START + DAY  # the first day is closed at this time, the second one is not
SPANS, EVENTS, LOGS = (
    f"{table}_p{TODAY:%Y%m%d}" for table in ("trace_spans", "trace_events", "logs")
)


def write_two_days(pool: StoragePool) -> None:
    rows = [a_span(n, n, START + (n - 1) * DAY, events=[an_event()]) for n in (1, 2)]
    CopyWriter(pool).write_spans(rows)
    CopyWriter(pool).write_logs([a_log(n, START + n * DAY) for n in (0, 1)])


def build(pool: StoragePool, **given: Any) -> IndexBuild:
    return build_partition_indexes(pool, **{"now": NOW, **given})


def indexes(engine: sa.Engine, schema: str = "public") -> dict[str, bool]:
    """The indexes of one kind: name -> whether it is valid."""
    query = sa.text(
        "SELECT i.relname, x.indisvalid FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid"
        " JOIN pg_class t ON t.oid = x.indrelid"
        " JOIN pg_namespace n ON n.oid = t.relnamespace"
        " WHERE n.nspname = :schema AND NOT i.relispartition AND t.relispartition"
    )
    with engine.connect() as connection:
        return {
            row.relname: row.indisvalid for row in connection.execute(query, {"schema": schema})
        }
