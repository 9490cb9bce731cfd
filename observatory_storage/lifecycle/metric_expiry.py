"""Deletes the definitions of metrics that have no data points any more."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

import sqlalchemy as sa

from observatory_storage.by_layout import ByLayout
from observatory_storage.commits import Change
from observatory_storage.errors import translated
from observatory_storage.lifecycle.run import Run
from observatory_storage.lifecycle.short_locks import with_short_locks
from observatory_storage.lifecycle.told_changes import telling_of
from observatory_storage.models import Metric, MetricDataPoint
from observatory_storage.schema_state import quoted_name
from observatory_storage.tables import METRICS

__all__ = ["count_pointless_metrics", "delete_pointless_metrics"]

_BATCH_SIZE: Final = 1_000
_NO_ID: Final = UUID(int=0)

_POINTS: Final = sa.select(MetricDataPoint.metric_id).where(MetricDataPoint.metric_id == Metric.id)
# A metric's points are looked up; shards tell which metrics have some.
_WITH_POINTS: Final = sa.select(MetricDataPoint.metric_id).distinct()
_POINTLESS: Final = sa.and_(
    Metric.updated_at < sa.bindparam("cutoff"),
    ByLayout(~_POINTS.exists(), Metric.id.not_in(_WITH_POINTS)),
)
_WALK: Final = (
    sa.select(Metric.id)
    .where(Metric.id > sa.bindparam("after"), _POINTLESS)
    .order_by(Metric.id)
    .limit(_BATCH_SIZE)
)
_IDS: Final = sa.bindparam("ids", type_=sa.ARRAY(Metric.id.type))
# A metric that is locked is being written.
_LOCK: Final = (
    sa.select(Metric.id)
    .where(Metric.id == sa.func.any(_IDS))
    .order_by(Metric.id)
    .with_for_update(skip_locked=True)
)
_DELETE: Final = (
    sa.delete(Metric).where(Metric.id == sa.func.any(_IDS), _POINTLESS).returning(Metric.id)
)


def delete_pointless_metrics(run: Run, cutoff: datetime) -> int:
    """Delete the metrics without data points that were last written before the cutoff.

    A writer that states a metric with its points locks the metric first. It waits until the metric
    is deleted, and creates it again.
    """
    source = run.source
    deleted, after = 0, _NO_ID
    while not run.deadline.is_over:
        with translated(), source.engine.connect() as connection:
            given = {"cutoff": cutoff, "after": after}
            found = list(connection.scalars(_WALK, given))
        if not found:
            break
        after = found[-1]
        with telling_of(source, Change(METRICS.name)):
            deleted += with_short_locks(
                source,
                lambda connection: _delete(connection, source.schema, found, cutoff),  # noqa: B023 - called here
            )
    return deleted


def _delete(connection: sa.Connection, schema: str, ids: list[UUID], cutoff: datetime) -> int:
    locked = list(connection.scalars(_LOCK, {"ids": ids}))
    # Once nobody is writing data points, those that were written are seen.
    points = f"{quoted_name(schema)}.metric_data_points"
    connection.execute(sa.text(f"LOCK TABLE ONLY {points} IN SHARE MODE"))
    gone = connection.execute(_DELETE, {"ids": locked, "cutoff": cutoff})
    return len(gone.all())


def count_pointless_metrics(run: Run, cutoff: datetime) -> int:
    """How many metrics would be deleted once the data points before the cutoff are gone."""
    is_kept = MetricDataPoint.timestamp >= cutoff
    goes = ByLayout(~_POINTS.where(is_kept).exists(), Metric.id.not_in(_WITH_POINTS.where(is_kept)))
    statement = sa.select(sa.func.count()).select_from(Metric)
    with translated(), run.source.engine.connect() as connection:
        found = connection.scalar(statement.where(Metric.updated_at < cutoff, goes))
    return found or 0
